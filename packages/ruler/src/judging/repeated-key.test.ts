import fc from "fast-check";
import { expect, it } from "vitest";
import { repeatedKey } from "./repeated-key.ts";

it("finds a key that comes twice in one object, at any depth, however it is written", () => {
  for (const json of [
    '{"a":1,"a":2}',
    '{"a":1,"b":{},"a":2}',
    '[{"x":[{"a":1}, {"b":0 , "a" : [], "a":{}}]}]',
    String.raw`{"a":1,"\u0061":2}`,
    '{"a":{"a":1},"a":2}',
  ]) {
    expect([json, repeatedKey(json)]).toEqual([json, "a"]);
  }
  expect(repeatedKey('{"__proto__":1,"__proto__":2}')).toBe("__proto__");
});

it("finds none where there is none, whatever the strings say", () => {
  expect(repeatedKey('[{"a":{"a":1}},{"a":"\\"a\\":1,\\"a\\":{"},{"b":"a","c":"a"}]')).toBeNull();
  fc.assert(fc.property(fc.json(), (json) => repeatedKey(json) === null));
});

it("finds one that is put into any object", () => {
  fc.assert(
    fc.property(
      fc.dictionary(fc.string(), fc.jsonValue(), { minKeys: 1 }),
      fc.nat(),
      (value, at) => {
        const keys = Object.keys(value);
        const key = keys[at % keys.length] as string;
        const json = JSON.stringify({ in: [value] });
        const twice = json.replace(/}\]}$/, () => `,${JSON.stringify(key)}:0}]}`);
        expect(repeatedKey(twice)).toBe(key);
      },
    ),
  );
});

it("reads a million characters", () => {
  const long = JSON.stringify({ text: '\\"'.repeat(250_000) });
  expect(repeatedKey(long)).toBeNull();
});
