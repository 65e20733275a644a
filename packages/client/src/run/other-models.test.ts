import { describe, expect, it } from "vitest";
import { otherModel, otherModels } from "./other-models.ts";

const environment = { OPENAI_API_KEY: "sk-open", OPENROUTER_API_KEY: "sk-router", MINE: "sk-mine" };
const settings = { keyVariable: "MINE", answerTokens: 8, environment };

describe("a model to compare with", () => {
  it.each([
    ["openai/gpt-4o-mini", "https://api.openai.com/v1", "gpt-4o-mini", "sk-open"],
    ["openrouter/qwen/qwen3-8b", "https://openrouter.ai/api/v1", "qwen/qwen3-8b", "sk-router"],
    [
      "http://127.0.0.1:8000/v1#Qwen/Qwen3-8B",
      "http://127.0.0.1:8000/v1",
      "Qwen/Qwen3-8B",
      "sk-mine",
    ],
    ["https://api.example.com/v1/#a#b", "https://api.example.com/v1", "a#b", "sk-mine"],
  ])("is %s", (name, baseURL, model, apiKey) => {
    const other = otherModel(name, settings);
    expect(other).toMatchObject({ label: name, answerTokens: 8 });
    expect(other.model).toMatchObject({ baseURL, name: model, apiKey });
  });

  it.each([
    ["gpt-4o", /names no model: use openai\/…, openrouter\/… or http:\/\/host:port\/v1#model/],
    ["openai/", /names no model/],
    ["toString/x", /names no model/],
    ["http://host/v1", /write http:\/\/host:port\/v1#model/],
    ["http://host/v1#", /write http:\/\/host:port\/v1#model/],
    ["http://#m", /names no model/],
  ])("is not %s", (name, message) => {
    expect(() => otherModel(name, settings)).toThrow(message);
  });

  it("has its key from the environment alone", () => {
    const none = { ...settings, environment: {} };
    expect(() => otherModel("openai/x", none)).toThrow("Set OPENAI_API_KEY");
    expect(otherModel("http://host/v1#m", none).model.apiKey).toBe("none");
    const refused = () => otherModel("https://me:secret@host/v1#m", settings);
    expect(refused).toThrow("the key comes from the environment");
    expect(refused).not.toThrow(/secret/);
  });
});

it("tells models of one name on two APIs apart, and takes one named twice once", () => {
  const names = ["http://a/v1#m", "http://b/v1#m", "http://a/v1#m"];
  const labels = otherModels(names, settings).map(({ label }) => label);
  expect(labels).toEqual(["http://a/v1#m", "http://b/v1#m"]);
});

it("leaves out the models before a none", () => {
  expect(otherModels(["openai/x", "none"], { ...settings, environment: {} })).toEqual([]);
  const after = otherModels(["openai/x", "none", "http://a/v1#m"], settings);
  expect(after.map(({ label }) => label)).toEqual(["http://a/v1#m"]);
});
