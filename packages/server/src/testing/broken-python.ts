import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, readdirSync, symlinkSync } from "node:fs";
import { delimiter, join } from "node:path";
import type { Interpreter } from "../setup/python.ts";

const question =
  "import json, os, sys, sysconfig; print(json.dumps([os.path.realpath(sys.executable), sysconfig.get_path('stdlib'), sys.base_prefix]))";

/**
 * A PATH with `python3.11`, a real interpreter whose library lacks `ensurepip`, as Debian's does without
 * python3-venv. With `working`, there is also `python3`, the interpreter as it is.
 */
export function pythonWithoutVenv(
  at: string,
  { executable }: Interpreter,
  { working }: { working: boolean },
): string {
  const answer = execFileSync(executable, ["-I", "-c", question], { encoding: "utf8" });
  const [file, library, prefix] = JSON.parse(answer) as [string, string, string];
  const bin = join(at, "broken", "bin");
  const lib = join(at, "broken", "lib");
  const own = join(lib, library.split("/").at(-1) ?? "");
  mkdirSync(bin, { recursive: true });
  mkdirSync(own, { recursive: true });
  // A copy finds its library beside itself; a link would find the original's.
  copyFileSync(file, join(bin, "python3.11"));
  for (const name of readdirSync(join(prefix, "lib"))) {
    if (name.startsWith("libpython")) symlinkSync(join(prefix, "lib", name), join(lib, name));
  }
  for (const name of readdirSync(library)) {
    if (name !== "ensurepip") symlinkSync(join(library, name), join(own, name));
  }
  if (!working) return bin;
  // Far from the library above, which it would take for its own.
  const whole = join(at, "working");
  mkdirSync(whole);
  symlinkSync(executable, join(whole, "python3"));
  return [bin, whole].join(delimiter);
}
