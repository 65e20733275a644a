import { randomBytes } from "node:crypto";
import { HoneError, modelNamePattern, parseModelRef, policyName } from "@hone/core";

// Sessions, training clients and samplers are names alone: what they mean stands in them. So nothing is kept of them,
// and a client goes on after a restart of the server.

/** A training client: a program that trains a model, from the first of its requests to the last. */
export interface TrainingClient {
  model: string;
  session: string;
  /** Its number in the session. */
  nth: number;
}

export function newSession(): string {
  return `s${randomBytes(12).toString("hex")}`;
}

const sessionPattern = /^s[0-9a-f]{24}$/;

export function requireSession(session: string): void {
  if (sessionPattern.test(session)) return;
  throw unknown(`There is no session "${session.slice(0, 80)}". Make a ServiceClient anew.`);
}

/** The name of a model that was made without one. */
export function unnamedModel({ session, nth }: Omit<TrainingClient, "model">): string {
  return `tinker-${session.slice(1, 13)}-${nth}`;
}

export function modelIdOf({ model, session, nth }: TrainingClient): string {
  return `${model}:${session}:${nth}`;
}

export function readModelId(id: string): TrainingClient {
  const [model = "", session = "", nth = "", ...rest] = id.split(":");
  const known =
    modelNamePattern.test(model) && sessionPattern.test(session) && /^\d{1,9}$/.test(nth);
  if (known && rest.length === 0) return { model, session, nth: Number(nth) };
  throw unknown(
    `There is no model_id "${id.slice(0, 120)}". Use that of create_lora_training_client.`,
  );
}

/** What the tokens of all operations of a training client begin with. */
export function tokenPrefix({ session, nth }: TrainingClient): string {
  return `${session}:${nth}:`;
}

/** The client token of a request: the same when it is sent again, and later ones are greater as texts. */
export function tokenOf(client: TrainingClient, seqId: number): string {
  return tokenPrefix(client) + String(seqId).padStart(10, "0");
}

/** The bare base is no policy: a model's name does not begin with an `@`. */
const base = "@base";

/** A sampler: `policy` is `name@N`, or null for the bare base. */
export function samplerIdOf(policy: string | null, session: string, nth: number): string {
  return `${policy ?? base}:${session}:${nth}`;
}

/** The policy of a sampler; null: the bare base. */
export function readSamplerId(id: string): string | null {
  const [policy = "", session = "", nth = "", ...rest] = id.split(":");
  const known = policy === base || typeof parseModelRef(policy)?.step === "number";
  if (known && sessionPattern.test(session) && /^\d{1,9}$/.test(nth) && rest.length === 0) {
    return policy === base ? null : policy;
  }
  throw unknown(`There is no sampler "${id.slice(0, 120)}". Make a sampling client anew.`);
}

/** `tinker://arith/weights/3`: policy 3 of the model `arith`. Both kinds are the same weights here. */
export function pathOf(
  kind: "weights" | "sampler_weights",
  { model, step }: { model: string; step: number },
): string {
  return `tinker://${model}/${kind}/${step}`;
}

/** The policy `name@N` that a path means. */
export function readPath(path: string): string {
  const [, model = "", step = ""] =
    /^tinker:\/\/([^/]+)\/(?:sampler_)?weights\/(0|[1-9]\d{0,8})$/.exec(path) ?? [];
  if (modelNamePattern.test(model)) return policyName(model, Number(step));
  throw unknown(
    `"${path.slice(0, 120)}" is no path of this server. One is tinker://<model>/weights/<step>, as save_state returns it.`,
  );
}

function unknown(message: string): HoneError {
  return new HoneError(message, { code: "not_found" });
}
