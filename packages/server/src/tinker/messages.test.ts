import { describe, expect, it } from "vitest";
import { decodePassRequest, encodePassOutput, encodeSamples } from "./messages.ts";
import { passOp } from "./pass-op.ts";
import { bytesField } from "./wire.ts";

// What the generated classes of Tinker's client 0.38 write of the same values.
const written = {
  request:
    "CiFhcml0aDpzMDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3OjAQBxqOAQoMCgoKCAUAAAAGAAAACggKBgoEcBEBABIhCgphZHZhbnRhZ2VzEhMKDAAAAAAAAIA/AADAvxgBIgEDEh8KCGxvZ3Byb2JzEhMKDAAAAL8AAIC+AAAAwBgBIgEDEjAKDXRhcmdldF90b2tlbnMSHwoYBgAAAAAAAABwEQEAAAAAAAEAAAAAAAAAGAIiAQMaOAoKEggKAXgSA3BuZxIkCg10YXJnZXRfdG9rZW5zEhMSCgoIMTIzNDU2NzgYAiIDAqwCGgQSAhgBIgNwcG8qHgoTY2xpcF9oaWdoX3RocmVzaG9sZBHNzMzMzMz0PyodChJjbGlwX2xvd190aHJlc2hvbGQRZmZmZmZm5j8wATogChNjbGlwX2hpZ2hfdGhyZXNob2xkEgkJzczMzMzM9D86HwoSY2xpcF9sb3dfdGhyZXNob2xkEgkJZmZmZmZm5j8=",
  text: "CgFtEAEiBWNpc3BvOg8KBG1vZGUSBxIFdGlnaHQ=",
  legacy: "EKwCIgNkcm8qDwoEYmV0YRGamZmZmZm5Pw==",
  output:
    "CgtBcnJheVJlY29yZBJHCgtBcnJheVJlY29yZBI2Cghsb2dwcm9icxIqCgwAAIC/AAAAwAAAAL8SGAAAAAAAAAAACAAAAAAAAAAMAAAAAAAAABgBGAIaEwoIbG9zczpzdW0RAAAAAAAA+D8aEgoHeno6bWVhbhEAAAAAAADQPw==",
  samples:
    "CkAIARIIAwAAAEANAwAaCAAAgL8AAADAIigKEAMAAAAEAAAACQAAAAAAAAASEAAAgL8AAMC/AAAAv4BPw8cYAiACEggAAMB/AAAAvw==",
};
const read = (name: keyof typeof written) =>
  decodePassRequest(Buffer.from(written[name], "base64"));

describe("requests", () => {
  it("are read as the client's classes write them", () => {
    const request = read("request");
    expect(request).toMatchObject({
      modelId: "arith:s0123456789abcdef01234567:0",
      seqId: 7,
      lossFn: "ppo",
      forwardOnly: true,
    });
    expect(Object.fromEntries(request.lossConfig)).toEqual({
      clip_low_threshold: 0.7,
      clip_high_threshold: 1.3,
    });
    expect(request.data[1]).toMatchObject({ chunks: [{ other: "image" }], spans: true });
    expect(request.data[1]!.inputs.get("target_tokens")).toEqual({
      dtype: 2,
      shape: [2, 300],
      dense: null,
    });
    expect(Object.fromEntries(read("text").lossConfig)).toEqual({ mode: "tight" });
    expect(read("legacy")).toMatchObject({ seqId: 300, lossFn: "dro", modelId: "" });
    expect(Object.fromEntries(read("legacy").lossConfig)).toEqual({ beta: 0.1 });
  });

  it("become operations, in one list a datum", () => {
    const request = read("request");
    request.data.pop();
    expect(passOp(request, false)).toEqual({
      type: "forward",
      data: [
        {
          tokens: [5, 6, 70000],
          targets: [6, 70000, 1],
          logprobs: [-0.5, -0.25, -2],
          advantages: [0, 1, -1.5],
        },
      ],
      loss: { type: "ppo", clipLow: 0.7, clipHigh: 1.3 },
      temperature: 1,
      maxTokensPerMicroBatch: 16384,
    });
    expect(passOp({ ...request, forwardOnly: false }, true)).toMatchObject({
      type: "forward_backward",
      fresh: true,
    });
  });

  it("that do not fit are refused by name", () => {
    const request = read("request");
    const [datum, image] = request.data;
    const refuse = (changes: Partial<typeof request>, message: RegExp) =>
      expect(() => passOp({ ...request, data: [datum!], ...changes }, true)).toThrow(message);
    refuse({ data: [image!] }, /data\[0\].model_input_spans: there is no stable_reinforce here/);
    refuse({ data: [{ ...image!, spans: false }] }, /data\[0\].model_input: it holds image/);
    refuse({ lossFn: "gspo" }, /loss_fn: there is no "gspo" here/);
    refuse({ lossFn: "constructor" }, /loss_fn: there is no "constructor" here/);
    refuse(
      { lossConfig: new Map([["beta", 1]]) },
      /loss_fn_config.beta: the loss "ppo" has no such/,
    );
    const withInput = (
      name: string,
      tensor: { dtype: number; shape: number[]; dense: Uint8Array | null },
    ) => [{ ...datum!, inputs: new Map(datum!.inputs).set(name, tensor) }];
    const ones = { dtype: 1, shape: [3], dense: new Uint8Array(12) };
    refuse({ data: withInput("mask", ones) }, /loss_fn_inputs.mask: no loss reads it here/);
    refuse({ data: withInput("weights", ones) }, /data\[0\].weights.*does not read it/);
    refuse(
      { data: withInput("target_tokens", { ...ones, dense: null }) },
      /more than one value a place/,
    );
    refuse({ data: withInput("logprobs", { ...ones, dtype: 4 }) }, /its dtype is number 4/);
    refuse(
      { data: withInput("logprobs", { ...ones, dense: new Uint8Array(7) }) },
      /no values of 4 bytes/,
    );
    refuse(
      { data: withInput("logprobs", { ...ones, dense: new Uint8Array(8) }) },
      /it has 2 elements/,
    );
  });

  it("that are cut anywhere are refused, or say less, and nothing else happens", () => {
    const whole = Buffer.from(written.request, "base64");
    for (let length = 0; length < whole.length; length++) {
      try {
        decodePassRequest(whole.subarray(0, length));
      } catch (error) {
        expect((error as Error).message).toMatch(/^The body is no protocol buffers message: /);
      }
    }
    expect(() => decodePassRequest(Buffer.from("{}"))).toThrow(/no protocol buffers message/);
  });
});

it("answers are written as the client's classes write them", () => {
  const told = { "loss:sum": 1.5, "zz:mean": 0.25 };
  const output = Buffer.from(encodePassOutput([[-1, -2], [-0.5]], told));
  expect(output.toString("base64")).toBe(written.output);
  const top = [
    [
      { id: 3, logprob: -1 },
      { id: 4, logprob: -1.5 },
    ],
    [{ id: 9, logprob: -0.5 }],
  ];
  const sequence = { ids: [3, 200_000], logprobs: [-1, -2], top, finish: "length" as const };
  const samples = Buffer.from(encodeSamples([sequence], 2, [NaN, -0.5]));
  expect(samples.toString("base64")).toBe(written.samples);
});

it("refuses a number that it would round", () => {
  const tooMany = Buffer.concat([
    bytesField(1, "m"),
    Buffer.from([0x10, 0x81, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10]),
  ]);
  expect(() => decodePassRequest(tooMany)).toThrow("field 2 is beyond 2^53");
});
