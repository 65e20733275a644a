import type { AnthropicConnection, Connection } from "@hone/client";

/** What an agent gets from a rollout. */
export interface Play {
  /** `model.connection()` */
  openai: Connection;
  /** `model.anthropic()` */
  anthropic: AnthropicConnection;
  /** Whether it reads its answers as they come. */
  streamed: boolean;
}

/** Looks for the key with its framework's own loop of tools. Resolves to what it says in the end. */
export type Agent = (play: Play) => Promise<string>;
