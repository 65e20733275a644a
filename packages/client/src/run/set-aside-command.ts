import { Command } from "commander";
import { printableLine } from "@hone/core";
import { lastAnswer } from "../stopping/texts.ts";
import { readPaused, setAside, type SetAside } from "./paused-run.ts";

/** `npx @hone/client set-aside RUN`: which rollouts of a paused run will not train. Without options it lists them. */
export async function setAsideCommand(out: string, args: readonly string[]): Promise<number> {
  const program = new Command(`npx @hone/client set-aside ${out}`)
    .description("Takes rollouts of a paused run out of its training, before it goes on.")
    .showHelpAfterError("--help lists all options.")
    .option("--suspicious", "all that raised the alarms")
    .option("--answer <text>", "all that end with this answer")
    .option("--rollouts <ids>", "these, with commas between them")
    .option("--none", "take back what was set aside")
    .helpOption("-h, --help", "show this")
    .parse([...args], { from: "user" });
  const { none, rollouts, ...which } = program.opts<
    Omit<SetAside, "rollouts"> & { none?: boolean; rollouts?: string }
  >();
  if (Object.keys(which).length === 0 && rollouts === undefined && !none) {
    return await list(out);
  }
  const ids = rollouts?.split(",").map((id) => id.trim());
  const aside = await setAside(out, { ...which, ...(ids && { rollouts: ids }) });
  console.log(`${aside.length} rollouts are set aside: they will not train.`);
  return 0;
}

async function list(out: string): Promise<number> {
  const paused = await readPaused(out);
  if (!paused) {
    console.log(`The run in ${out} is not paused.`);
    return 1;
  }
  for (const { code, message } of paused.alarms) console.log(`${code}: ${message}`);
  const suspicious = new Set(paused.suspicious);
  const aside = new Set(paused.setAside);
  for (const one of paused.groups.flatMap(({ trajectories }) => trajectories)) {
    const id = one.rolloutId ?? "";
    const marks = `${suspicious.has(id) ? "!" : " "}${aside.has(id) ? "x" : " "}`;
    console.log(
      `${marks} ${id}  ${one.reward ?? "none"}  ${printableLine(lastAnswer(one) ?? "").slice(0, 80)}`,
    );
  }
  console.log("!: raised an alarm. x: set aside.");
  return 0;
}
