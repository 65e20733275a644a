// Prints the interpreter of the test environment.
import { setUpPython } from "./install.mjs";

console.log(await setUpPython({ test: true }));
