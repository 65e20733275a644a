import type { ServerSources } from "@hone/transport";

/** What the ruler needs from where it runs. `#platform` in package.json chooses the file that has it. */
export interface Platform {
  environment(name: string): string | undefined;
  /**
   * The secret that fences and ids are made with. The same one on each call, so that the same group
   * gives the same prompt; unknown to any agent, so that no trajectory can hold a fence.
   */
  installSecret(): Promise<string>;
  /** Where a Hone server may be named, besides by a call. */
  honeServer(): Pick<ServerSources, "environment" | "announced">;
  /** Answers on disk by the hash of their question. Null where there is no disk. */
  answerStore(folder: string | undefined): AnswerStore | null;
}

export interface AnswerStore {
  get(key: string): Promise<string | null>;
  set(key: string, value: string): Promise<void>;
}
