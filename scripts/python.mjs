// Prints the interpreter of the test environment.
import { setUpPython } from "./install.mjs";

console.log(setUpPython({ test: true }));
