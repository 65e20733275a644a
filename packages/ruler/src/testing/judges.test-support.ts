import { ScriptedJudge, type ScriptedJudgeOptions } from "./scripted-judge.ts";

/**
 * Starts judges that end with the test, which has to have used up their scripts. Give it vitest's `afterEach` before
 * other hooks do: they run last to first, so that mocks and timers are the real ones again by then.
 */
export function useJudges(
  afterEach: (end: () => Promise<void>) => void,
): (options: ScriptedJudgeOptions) => Promise<ScriptedJudge> {
  const judges: ScriptedJudge[] = [];
  afterEach(async () => {
    for (const judge of judges.splice(0)) {
      judge.assertDone();
      await judge.close();
    }
  });
  return async (options) => {
    const judge = await ScriptedJudge.start(options);
    judges.push(judge);
    return judge;
  };
}
