import { readProviderAnswer } from "./provider-answer.ts";
import type { ProviderAnswer } from "./provider-answer.ts";
import { fieldsOf, listOf, readContent, readSaid, textField } from "./provider-message.ts";
import type { SaidCall } from "./provider-message.ts";

interface OpenCall extends SaidCall {
  index: unknown;
}

/**
 * Puts a streamed answer together from the data of its events: chat completions as a dozen providers stream them,
 * completions, the Responses API, Anthropic's Messages.
 */
export class ProviderStream {
  #content: string | null = null;
  #reasoning: string | null = null;
  #refusal: string | null = null;
  readonly #calls: OpenCall[] = [];
  #whole: ProviderAnswer | null = null;
  #head: Partial<ProviderAnswer> = {};
  #seen = false;
  #done = false;

  /** Whether the provider has said that this was all. */
  get isDone(): boolean {
    return this.#done;
  }

  /** The data of one event. What is none of an answer's is passed over. */
  add(data: string): void {
    if (data.trim() === "[DONE]") {
      this.#done = true;
      return;
    }
    let value: unknown;
    try {
      value = JSON.parse(data);
    } catch {
      return;
    }
    const event = fieldsOf(value);
    const type = textField(event["type"]) ?? "";
    if (type.startsWith("response.")) this.#addOfResponses(type, event);
    else if (/^(?:message|content_block)_/.test(type)) this.#addOfMessages(type, event);
    else this.#addChunk(event);
  }

  /** What has come; null where nothing of an answer has. */
  answer(): ProviderAnswer | null {
    if (!this.#seen && !this.#whole) return null;
    const calls = this.#calls.map(({ id, name, arguments: written }) => ({
      id,
      name,
      arguments: written,
    }));
    const streamed = this.#content !== null || this.#refusal !== null || calls.length > 0;
    const whole = this.#whole;
    return {
      id: null,
      model: null,
      finishReason: null,
      promptTokens: null,
      completionTokens: null,
      ...whole,
      ...this.#head,
      // Some providers repeat the whole message at the end: what was streamed is the same.
      content: streamed || !whole ? this.#content : whole.content,
      reasoning: this.#reasoning ?? whole?.reasoning ?? null,
      refusal: streamed || !whole ? this.#refusal : whole.refusal,
      calls: calls.length > 0 || !whole ? calls : whole.calls,
    };
  }

  #addChunk(event: Record<string, unknown>): void {
    const choices = listOf(event["choices"]).map(fieldsOf);
    const choice =
      choices.find(({ index }) => index === 0) ?? choices.find((one) => !("index" in one));
    this.#note(event);
    if (!choice) return;
    this.#seen = true;
    const finish = textField(choice["finish_reason"]);
    if (finish) {
      this.#head.finishReason = finish;
      this.#done = true;
    }
    if (choice["message"] != null) this.#whole = readProviderAnswer({ choices: [choice] });
    if (choice["delta"] != null) this.#say(choice["delta"]);
    else if (typeof choice["text"] === "string")
      this.#content = (this.#content ?? "") + choice["text"];
  }

  #say(delta: unknown): void {
    const said = readSaid(delta);
    if (said.content !== null) this.#content = (this.#content ?? "") + said.content;
    if (said.reasoning) this.#reasoning = (this.#reasoning ?? "") + said.reasoning;
    if (said.refusal) this.#refusal = (this.#refusal ?? "") + said.refusal;
    const given = listOf(fieldsOf(delta)["tool_calls"]);
    for (const [at, call] of said.calls.entries()) {
      this.#addCall(call, fieldsOf(given[at])["index"] ?? null);
    }
  }

  /**
   * By its index where there is one, unless that comes with another id; else by its id; else it goes on with the
   * last call, unless it has a name, and the last one is named already.
   */
  #addCall(call: SaidCall, index: unknown): void {
    const isOther = (one: OpenCall): boolean =>
      call.id !== null && one.id !== null && call.id !== one.id;
    const known =
      index !== null
        ? this.#calls.findLast((one) => one.index === index && !isOther(one))
        : call.id !== null
          ? this.#calls.find((one) => one.id === call.id)
          : this.#calls.at(-1);
    const begins =
      known === undefined ||
      (call.id === null &&
        call.name !== "" &&
        known.name !== "" &&
        // Some give one index to all calls: one that has its arguments is over when another name comes.
        (index === null || isWhole(known.arguments)));
    if (begins) {
      this.#calls.push({ ...call, index });
      return;
    }
    known.id ??= call.id;
    // A provider that repeats the name, or all of it so far, does not mean it twice.
    known.name = call.name.startsWith(known.name) ? call.name : known.name + call.name;
    known.arguments += call.arguments;
  }

  #addOfResponses(type: string, event: Record<string, unknown>): void {
    if (/^response\.(?:completed|incomplete|failed|done)$/.test(type)) {
      this.#whole = readProviderAnswer(event["response"]) ?? this.#whole;
      this.#done = true;
      return;
    }
    const text = textField(event["delta"]);
    if (type === "response.output_text.delta" && text !== null) {
      this.#seen = true;
      this.#content = (this.#content ?? "") + text;
    } else if (type === "response.refusal.delta" && text !== null) {
      this.#refusal = (this.#refusal ?? "") + text;
    } else if (/^response\.reasoning\w*\.delta$/.test(type) && text !== null) {
      this.#reasoning = (this.#reasoning ?? "") + text;
    } else if (type === "response.output_item.done") {
      this.#seen = true;
      this.#calls.push(
        ...readContent([event["item"]]).calls.map((call) => ({ ...call, index: null })),
      );
    } else if (type === "response.created") {
      this.#note(fieldsOf(event["response"]));
    }
  }

  #addOfMessages(type: string, event: Record<string, unknown>): void {
    this.#seen = true;
    if (type === "message_stop") this.#done = true;
    if (type === "message_start") this.#note(fieldsOf(event["message"]));
    if (type === "message_delta") {
      this.#head.finishReason = textField(fieldsOf(event["delta"])["stop_reason"]);
      this.#note(event);
    }
    const { index = null } = event;
    if (type === "content_block_start") {
      const block = fieldsOf(event["content_block"]);
      // Its input comes in pieces.
      if (block["type"] === "tool_use") {
        const [call] = readContent([{ ...block, input: undefined }]).calls;
        if (call) this.#calls.push({ ...call, index });
      } else this.#say({ content: [block] });
    }
    if (type !== "content_block_delta") return;
    const delta = fieldsOf(event["delta"]);
    const piece = textField(delta["partial_json"]);
    if (piece !== null) {
      const call = this.#calls.find((one) => one.index === index);
      if (call) call.arguments += piece;
      return;
    }
    this.#say({ content: textField(delta["text"]), thinking: delta["thinking"] });
  }

  #note(event: Record<string, unknown>): void {
    const { id, model, promptTokens, completionTokens } = readProviderAnswer({
      ...event,
      choices: [{ text: "" }],
    }) as ProviderAnswer;
    const known = { id, model, promptTokens, completionTokens };
    for (const [name, value] of Object.entries(known)) {
      if (value !== null) Object.assign(this.#head, { [name]: value });
    }
  }
}

function isWhole(json: string): boolean {
  try {
    JSON.parse(json);
    return true;
  } catch {
    return false;
  }
}
