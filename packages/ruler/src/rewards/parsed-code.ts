/** What a parser found, or that it is no such code. */
export type ParsedCode =
  | {
      ok: true;
      /** The modules that the code imports; "*" where that may be any. */
      imports: string[];
      /**
       * Nothing but names, texts, numbers and operators: `Sorry, no` parses, and so does an answer in backticks,
       * which JavaScript takes for a template.
       */
      wordsOnly: boolean;
    }
  | { ok: false; problem: string };

export type CodeLanguage = "typescript" | "tsx" | "javascript" | "python";
