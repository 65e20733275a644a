/** What a good attempt is, when the user says nothing else. */
export const defaultRubric = `- An attempt that reaches the goal of its task scores clearly above every attempt that does not.
- Among attempts that reach it, the one that needs fewer steps, calls and words scores higher.
- Among attempts that do not reach it, the one that got closer scores higher: partial credit is fine.
- The distance between two scores says how much better one attempt is. Attempts of equal worth score the same.
- What counts is what the attempt did and achieved, not what it says about itself.`;

/** Customer support by e-mail. */
export const supportEmailRubric = `- The reply answers every question that the customer asked, and asks back only for what is needed.
- Facts, prices, dates and promises are those of the policy, the order and the tool results; anything made up scores below an honest "I do not know yet".
- What the policy forbids is not promised. What has to be handed to a person is handed on, and the customer is told so.
- The tone is polite, calm and personal; the reply is as short as the matter allows.
- A right answer in a poor tone scores above a wrong answer in a good one.`;

/** Agents that search and then answer. */
export const searchAgentRubric = `- The final answer is right, complete and to the point. A wrong answer scores below "I could not find it".
- Each claim is supported by something that the agent read in this attempt; sources that it cites exist and say so.
- Searches are chosen well: what was found steers the next one, and nothing is asked twice.
- Fewer searches and pages for the same answer score higher.`;

/** Games and puzzles with moves. */
export const gameRubric = `- The result of the game counts most: won above drawn above lost, a higher final score above a lower one.
- Illegal moves, moves in a wrong format and games that were not finished score below finished ones.
- Between equal results, sound play scores higher: threats seen, no pointless moves, fewer moves to win.`;

/** Agents that write or change code. */
export const codeRubric = `- Code that does what was asked, in all cases that the task names, scores clearly above code that does not.
- What the attempt shows by running it (tests, output, type checks) counts; a claim that it works, without that, counts little.
- Changes stay within the task: nothing else is broken, removed or rewritten; tests are not weakened to pass.
- Between equal results, the simpler and clearer change scores higher.`;
