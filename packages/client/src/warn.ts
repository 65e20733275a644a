/** Warns the person who runs the program: a warning of the Node process, which Node prints on stderr. */
export function warn(message: string): void {
  process.emitWarning(message, "HoneWarning");
}
