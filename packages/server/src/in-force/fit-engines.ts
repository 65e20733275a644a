import { givenFlag } from "../engines/vllm/flags.ts";
import { defaultMaxStaleness, wantedSlots } from "../engines/vllm/slots.ts";
import { isEmbedded } from "../engine-options.ts";
import { counted, type Rule } from "./rule.ts";
import { vllmsOnOneCard } from "./fit-memory.ts";

export const engineRules: readonly Rule[] = [
  ({ given, engines }) => {
    if (given.engine !== "joined" || engines.some(({ state }) => state === "serving")) return null;
    const isNear = isLoopback(given.host ?? "127.0.0.1");
    return {
      ...{ options: isNear ? ["--engine", "--host"] : ["--engine"], verdict: "misfit" },
      message: `No engine serves, so nothing generates. ${isNear ? "The server listens on this machine's loopback, so only engines on it can join: give --host 0.0.0.0 for others. " : ""}\`hone engines token\` makes a token for one.`,
    };
  },

  ({ engines }) =>
    engines
      .filter(({ state, reason }) => state !== "serving" && reason !== null)
      .map(({ name, joined, reason }) => ({
        options: ["--engine"],
        verdict: "misfit" as const,
        message: `The engine ${name} takes no requests: ${reason ?? ""}${joined ? ` If it does not come back, \`hone engines remove ${name}\`.` : ""}`,
      })),

  ({ given, engines }) => {
    // The embedded engine has no deadline: what fences it is not lateness.
    const late = engines.filter(({ fences }) => fences > 0);
    if (isEmbedded(given) || late.length === 0) return null;
    const seconds = (given.publishDeadlineMs ?? 10_000) / 1000;
    const names = late.map(({ name, fences }) => `${name} ${counted(fences, "time")}`).join(", ");
    return {
      ...{ options: ["--publish-deadline", "--probe-tolerance"], verdict: "hint" },
      message: `Publications have fenced ${names}. If they were late (more than ${seconds} s after the start), a larger deadline waits for them; the server's log says what it was.`,
    };
  },

  ({ given, engines }) => {
    const seconds = (given.publishDeadlineMs ?? Infinity) / 1000;
    return seconds < 5 && engines.some(({ joined }) => joined)
      ? {
          ...{ options: ["--publish-deadline"], verdict: "hint" },
          message: `Engines that joined fetch each policy over the network, and have ${seconds} s for it where another engine is ready. The default is 10.`,
        }
      : null;
  },

  ({ given, machine }) => {
    if (given.engine !== "vllm") return null;
    const replicas = given.replicas ?? 1;
    if (given.device !== "cuda") {
      return replicas > machine.cores
        ? {
            ...{ options: ["--replicas"], verdict: "misfit" },
            message: `${replicas} vLLMs share ${counted(machine.cores, "core")}. Give fewer.`,
          }
        : null;
    }
    const each = vllmsOnOneCard(given, machine.cards.length);
    if (each <= 1) return null;
    return {
      ...{ options: ["--replicas", "--"], verdict: "hint" },
      message: `${replicas} vLLMs share ${counted(machine.cards.length, "card")}, ${each} on one: each has less memory for keys and values, and they wait for one another. One for each card is faster.`,
    };
  },

  ({ given, sleep }) =>
    given.sleep && sleep && sleep.stayedAwake > 0 && sleep.slept === 0
      ? {
          ...{ options: ["--sleep"], verdict: "hint" },
          message: `vLLM stayed awake for all of ${counted(sleep.stayedAwake, "step")}, because rollouts were open as they began: no step had more memory for it. Play and train in turn, or leave it out.`,
        }
      : null,

  ({ given, models, slots: started }) => {
    const slots = Number(givenFlag(given.vllmFlags ?? [], "--max-loras")) || started;
    const { maxStaleness } = given;
    const wanted = wantedSlots({ models: models.inUse, maxStaleness });
    return slots !== null && wanted > slots
      ? {
          ...{ options: ["--max-staleness", "--"], verdict: "hint" },
          message: `vLLM samples from ${slots} policies at a time, and ${counted(models.inUse, "model")} in use now, trained on rollouts up to ${counted(maxStaleness ?? defaultMaxStaleness, "step")} old, want ${wanted}: requests for the others wait. Train fewer at a time or with less staleness, or give --max-loras ${wanted} behind --.`,
        }
      : null;
  },

  ({ given, models }) => {
    const rank = Number(givenFlag(given.vllmFlags ?? [], "--max-lora-rank"));
    return given.engine === "vllm" && rank > 0 && rank < models.highestRank
      ? {
          ...{ options: ["--"], verdict: "misfit" },
          message: `--max-lora-rank is ${rank}, and a model has rank ${models.highestRank}: vLLM refuses its policies. Leave the flag out.`,
        }
      : null;
  },

  ({ bucket, engines }) => {
    if (!bucket) return null;
    const { place, state, reason, fallbacks } = bucket;
    const options = ["--bucket", "--bucket-endpoint"];
    if (state !== "ready") {
      const message = `The bucket ${place} is of no use now: ${reason ?? ""} Engines get adapters from this server meanwhile.`;
      return { options, verdict: "misfit", message };
    }
    if (!engines.some(({ joined }) => joined)) {
      const message = "No engine has joined, and only such engines use the bucket.";
      return { options: ["--bucket"], verdict: "hint", message };
    }
    if (fallbacks > 0) {
      const message = `Engines have taken adapters from this server ${counted(fallbacks, "time")} because the bucket did not give them. The server's log names the engines and the reasons.`;
      return { options, verdict: "hint", message };
    }
    return isInClear(bucket.origin)
      ? {
          ...{ options: ["--bucket-endpoint"], verdict: "hint" },
          message:
            "Weights go to and from the bucket in clear. Use an https URL, or see that the network is private.",
        }
      : null;
  },
];

function isInClear(origin: string): boolean {
  const { protocol, hostname } = new URL(origin);
  return protocol === "http:" && !isLoopback(hostname.replace(/^\[(.*)\]$/, "$1"));
}

function isLoopback(host: string): boolean {
  return /^(localhost|127(\.\d+){3}|::1)$/.test(host);
}
