import { numberReader } from "@hone/core";
import { InvalidArgumentError } from "commander";

export const wholeNumber = (least: number, most?: number): ((text: string) => number) =>
  numberReader({ whole: true, least, most }, InvalidArgumentError);

/** Of a whole. */
export const share = numberReader({ least: 0.05, most: 0.95 }, InvalidArgumentError);

export const notNegative = numberReader({ least: 0 }, InvalidArgumentError);

export const atLeastOne = wholeNumber(1);
