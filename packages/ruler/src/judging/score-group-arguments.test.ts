import { expect, it } from "vitest";
import { group } from "../testing/group.test-support.ts";
import { rulerScoreGroup } from "./score-group.ts";

it.each([
  [group([]), null, "judge"],
  [group([]), undefined, "judge"],
  [group([]), 5, "judge"],
  [null, "openai/o3", "group"],
  [undefined, "openai/o3", "group"],
  [{}, "openai/o3", "group"],
])("an argument that is none is refused by name: %#", async (first, judge, param) => {
  await expect(rulerScoreGroup(first as never, judge as never)).rejects.toMatchObject({
    code: "invalid_config",
    param,
  });
});
