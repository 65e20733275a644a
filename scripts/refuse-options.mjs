// Loaded before a bench or an experiment: an option that it does not know is one line and exit 2, no stack trace.
import process from "node:process";

process.on("uncaughtExceptionMonitor", (error) => {
  const code = "code" in error ? String(error.code) : "";
  if (!code.startsWith("ERR_PARSE_ARGS_")) return;
  // Node's next sentences tell how to pass such a thing as a positional argument, which none of these takes.
  console.error(`${error.message.split(". ")[0]}. --help shows what there is.`);
  process.exit(2);
});
