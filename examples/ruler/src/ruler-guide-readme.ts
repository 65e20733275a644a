import { exampleGroup as group } from "./example-group.ts";
// #region readme
import { rulerScoreGroup } from "@hone/ruler";

const scored = await rulerScoreGroup(group, "openai/o4-mini"); // OPENAI_API_KEY
// #endregion

export { scored };
