import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { parseAllDocuments } from "yaml";
import { engineCommand } from "./engine.ts";

const folder = fileURLToPath(new URL("../../../../examples/engines", import.meta.url));
const read = (name: string) => readFileSync(join(folder, name), "utf8");
const files = readdirSync(folder).filter((name) => name.endsWith(".yaml"));

/** A value anywhere in the documents of a file, with the keys on the way to it. */
function* valuesIn(value: unknown, path: string[] = []): Generator<[string, unknown]> {
  yield [path.join("."), value];
  if (typeof value !== "object" || value === null) return;
  for (const [key, inner] of Object.entries(value)) yield* valuesIn(inner, [...path, key]);
}

function valuesOf(name: string): [string, unknown][] {
  const documents = parseAllDocuments(read(name), { strict: true, uniqueKeys: true });
  return documents.flatMap((document) => {
    expect(document.errors).toEqual([]);
    return [...valuesIn(document.toJS())];
  });
}

/** The words behind `hone engine`, where a container's arguments or a shell's line start it. */
function commandsIn(values: [string, unknown][]): string[][] {
  const lists = values.flatMap(([, value]) =>
    Array.isArray(value) && value[0] === "engine" ? [value.slice(1).map(String)] : [],
  );
  const lines = values.flatMap(([, value]) =>
    typeof value === "string" ? [...value.matchAll(/\bhone engine (.+)$/gm)] : [],
  );
  const unquoted = (word: string): string => word.replaceAll('"', "");
  return [...lists, ...lines.map(([, line = ""]) => line.split(/\s+/).map(unquoted))];
}

it("there is one for each way to start engines", () => {
  expect(files.toSorted()).toEqual(["deployment.yaml", "kuberay.yaml", "skypilot.yaml"]);
});

describe.each(files)("examples/engines/%s", (name) => {
  const values = valuesOf(name);

  it("starts engines by flags that there are, with values that they take", () => {
    const commands = commandsIn(values);
    expect(commands).toHaveLength(1);
    for (const words of commands) {
      const given = words.map((word) =>
        word.replace("$HONE_SERVER", "http://trainer:7777").replace(/\$(\w+|\(\w+\))/, "10.0.0.9"),
      );
      const command = engineCommand().exitOverride();
      const { operands, unknown } = command.parseOptions(given);
      expect({ operands, unknown }).toEqual({ operands: [], unknown: [] });
      expect(command.opts()).toMatchObject({
        join: expect.stringMatching(/^http:/),
        ...{ device: "cuda", listen: { host: "0.0.0.0", port: 8000 } },
        advertise: "http://10.0.0.9:8000",
      });
    }
  });

  it("gives the token by the environment, where a list of processes does not show it", () => {
    expect(JSON.stringify(values)).toContain("HONE_JOIN_TOKEN");
    expect(commandsIn(values).flat().join(" ")).not.toContain("--token");
  });

  it("mounts what it declares", () => {
    const of = (end: string): unknown[] =>
      values.filter(([path]) => path.endsWith(end)).map(([, value]) => value);
    const mounted = of("volumeMounts").flat() as { name: string }[];
    const declared = of("volumes").flat() as { name: string }[];
    expect(mounted.map((one) => one.name).toSorted()).toEqual(
      declared.map((one) => one.name).toSorted(),
    );
    const claims = of("claimName");
    expect(claims.every((claim) => of("metadata.name").includes(claim))).toBe(true);
  });

  it("says that it has not been run", () => {
    expect(read(name).slice(0, 200)).toMatch(/has not been run/);
  });
});

it("the image has the vLLM that Hone is tested with", () => {
  const requirement = readFileSync(
    new URL("../../worker/requirements/vllm-cuda.txt", import.meta.url),
    "utf8",
  );
  const [, version] = /^vllm==([\d.]+)/m.exec(requirement) ?? [];
  expect(read("Dockerfile")).toContain(`vllm/vllm-openai:v${version}`);
});
