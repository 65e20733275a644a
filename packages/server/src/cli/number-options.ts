import { numberReader } from "@hone/core";
import { InvalidArgumentError } from "commander";

export const wholeNumber = (least: number, most?: number): ((text: string) => number) =>
  numberReader({ whole: true, least, most }, InvalidArgumentError);

export const atLeastOne = wholeNumber(1);
