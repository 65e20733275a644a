// The runs of the quickstart, each in a folder of its own with a model name of its own.
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { basename, dirname, join, resolve as absolute } from "node:path";
import { fail, root } from "./install.mjs";

const runs = join(root, "runs");
const runFile = "run.json";

/**
 * @typedef {object} Run
 * @property {string} story
 * @property {string[]} args for the example, without the folder
 * @property {string} out
 * @property {boolean} help
 * @property {string | null} base another base than the example's: a folder, an id on the hub, a name of `setup --model`
 * @property {string | null} device that it is served on; null for the server's default
 */

/**
 * A new run, or the one that `--resume` names, with the options it began with; those given now come after.
 *
 * @param {string[]} given
 * @returns {Run}
 */
export function chooseRun(given) {
  const help = given.includes("--help") || given.includes("-h");
  const named = given[0] !== undefined && !given[0].startsWith("-");
  const args = (named ? given.slice(1) : given).map(todaysName);
  const resume = take(args, "--resume");
  const folder = take(args, "--out");
  const base = take(args, "--base");
  const device = take(args, "--device");
  if (base === "" || device === "") fail("--base and --device need a value.");
  if (resume !== null) {
    if (folder !== null || named) fail("--resume names the run: leave --out and the example out.");
    if (base !== null) fail("--resume goes on with the run's own base: leave --base out.");
    const out = resume === "" ? newestRun() : findRun(resume);
    const begun = JSON.parse(readFileSync(join(out, runFile), "utf8"));
    const served = { base: begun.base ?? null, device: device ?? begun.device ?? null };
    return {
      story: begun.story,
      args: [...begun.args.map(todaysName), ...args],
      out,
      help,
      ...served,
    };
  }
  const story = named ? given[0] : "2048";
  if (folder === "") fail("--out needs the name of a folder.");
  const out = folder === null ? freshFolder() : absolute(folder);
  if (!help && existsSync(join(out, runFile))) {
    fail(`${out} holds a run. Go on with it by --resume ${out}, or name another folder.`);
  }
  // Also where its data is copied or served beside others, a run's model is told from another's.
  const model = `${story}-${basename(out).toLowerCase()}`.replaceAll(/[^a-z0-9._-]/g, "-");
  const name = args.some((arg) => /^--name(=|$)/.test(arg)) ? [] : ["--name", model.slice(0, 64)];
  // A folder is meant as it is seen from here; anything else is an id or a name.
  const own = base !== null && existsSync(base) ? absolute(base) : base;
  return { story, args: [...name, ...args], out, help, base: own, device };
}

/**
 * Options of the quickstart's that the run of any task has under another name.
 *
 * @param {string} arg
 */
function todaysName(arg) {
  return arg
    .replace(/^--verdict-seeds(?=$|=)/, "--held-out")
    .replace(/^--eval-seeds(?=$|=)/, "--eval-held-out");
}

/**
 * Makes the run's folder with its missing parents. Node's own recursive `mkdir` tries for ever where root may write
 * and the system lets nobody make anything, such as in /proc.
 *
 * @param {string} out
 */
export function makeRunFolder(out) {
  if (existsSync(out) && statSync(out).isDirectory()) return;
  makeRunFolder(dirname(out));
  try {
    mkdirSync(out);
  } catch (error) {
    // Another quickstart may have made it meanwhile.
    if (existsSync(out) && statSync(out).isDirectory()) return;
    fail(
      `The folder ${out} cannot be made (${/** @type {Error} */ (error).message}). Name another one.`,
    );
  }
}

/**
 * Ends the program where the run's folder could not be made. Its parents stay.
 *
 * @param {string} out
 */
export function tryRunFolder(out) {
  if (existsSync(out)) return;
  makeRunFolder(out);
  rmdirSync(out);
}

/** @param {Run} run */
export function saveRun({ story, args, out, base, device }) {
  writeFileSync(join(out, runFile), `${JSON.stringify({ story, args, base, device }, null, 2)}\n`);
}

/**
 * What the run was before `saveRun`, for `putBack`. Null where there was none.
 *
 * @param {string} out
 */
export function savedRun(out) {
  const file = join(out, runFile);
  return existsSync(file) ? readFileSync(file, "utf8") : null;
}

/**
 * A resumed run that was refused goes on with the options that it had before.
 *
 * @param {string} out
 * @param {string} saved
 */
export function putBack(out, saved) {
  writeFileSync(join(out, runFile), saved);
}

/** @param {string} out */
export function forgetRun(out) {
  rmSync(join(out, runFile), { force: true });
}

/**
 * Takes an option out of the arguments: null where it is not there, "" where it has no value.
 *
 * @param {string[]} args
 * @param {string} name
 */
function take(args, name) {
  const at = args.findIndex((arg) => arg === name || arg.startsWith(`${name}=`));
  if (at < 0) return null;
  const [arg = ""] = args.splice(at, 1);
  if (arg !== name) return arg.slice(name.length + 1);
  const next = args[at];
  if (next === undefined || next.startsWith("-")) return "";
  args.splice(at, 1);
  return next;
}

/** @param {string} given a folder, or its name in `runs` */
function findRun(given) {
  const found = [absolute(given), join(runs, given)].find((out) => existsSync(join(out, runFile)));
  return found ?? fail(`There is no run in ${absolute(given)}, nor one named "${given}" in runs/.`);
}

function newestRun() {
  const names = existsSync(runs) ? readdirSync(runs) : [];
  // Their names begin with the time: the last is the newest.
  const found = names
    .filter((name) => name.startsWith("quickstart-") && existsSync(join(runs, name, runFile)))
    .sort();
  const newest = found.at(-1);
  return newest ? join(runs, newest) : fail("There is no run in runs/ to go on with.");
}

/** Two runs that begin in the same millisecond would be one. */
function freshFolder() {
  const stamp = new Date().toISOString().replaceAll(/[:.]/g, "-");
  return join(runs, `quickstart-${stamp}-${process.pid}`);
}
