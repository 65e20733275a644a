import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { readPreferences } from "./preference-files.ts";

it("reads UltraFeedback's schema from Parquet, whose columns of its own are not read", async () => {
  const path = fileURLToPath(new URL("testing/ultrafeedback.parquet", import.meta.url));
  const rows = await readPreferences(path);
  expect(rows).toHaveLength(3);
  const said = (content: string) => [
    { role: "user", content: "Prompt 2" },
    { role: "assistant", content },
  ];
  expect(rows[2]).toEqual({
    ...{ prompt: "Prompt 2", chosen: said("b2"), rejected: said("a2") },
    ...{ score_chosen: 7.5, score_rejected: 4 },
  });
});
