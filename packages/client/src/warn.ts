/** Says something to the person who runs the program: on stderr, and to whoever listens for warnings. */
export function warn(message: string): void {
  process.emitWarning(message, "HoneWarning");
}
