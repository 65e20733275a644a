import { describe, expect, it } from "vitest";
import { adapterAt } from "../testing/adapters.ts";
import { createLiveAdapters, type LiveSet } from "./live-set.ts";

describe("the live set", () => {
  const base = { name: "base", dtype: "float32" as const };

  it("has a new generation for each change, and tells those who watch it", () => {
    const live = createLiveAdapters(() => base);
    const seen: LiveSet[] = [];
    const end = live.onChange((set) => seen.push(set));
    const [first, second] = [adapterAt("m@1"), adapterAt("m@2")];
    live.add(first);
    live.add(first);
    live.add(second);
    live.remove("m@1");
    live.remove("m@1");
    end();
    live.remove("m@2");
    expect(seen).toEqual([
      { generation: 1, base, adapters: [first] },
      { generation: 2, base, adapters: [first, second] },
      { generation: 3, base, adapters: [second] },
    ]);
    expect(live.current()).toEqual({ generation: 4, base, adapters: [] });
  });

  it("is changed by other weights under the same name", () => {
    const live = createLiveAdapters(() => base);
    live.add(adapterAt("m@1"));
    live.add({ ...adapterAt("m@1"), sha256: "f".repeat(64) });
    expect(live.current().generation).toBe(2);
  });
});
