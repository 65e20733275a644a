import { HoneError, modelNamePattern } from "@hone/core";

/** `name=folder` or `name=hub id`, as `serve --reward-model` takes it. */
export function parseRewardModel(text: string): { name: string; source: string } {
  const at = text.indexOf("=");
  const [name, source] = [text.slice(0, Math.max(at, 0)), text.slice(at + 1)];
  if (modelNamePattern.test(name) && source) return { name, source };
  throw new HoneError(
    `"${text}" names no reward model. Write name=folder or name=hub id, such as helpful=./reward-model; ` +
      "a name is 1–64 of a-z 0-9 . _ - and begins with a letter or digit.",
    { code: "invalid_config", param: "rewardModels" },
  );
}
