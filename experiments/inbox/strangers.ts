import { readdir, readFile } from "node:fs/promises";
import { writeMails, type Mail } from "../../examples/inbox/src/bills.ts";

const folder = new URL("strangers/", import.meta.url);

/** 48 mails of each stranger, N.json: six in each of the eight wordings, with the stranger's own names. */
export async function mailsOfStrangers(): Promise<Record<string, Mail[]>> {
  const numbers = (await readdir(folder)).map((file) => Number(file.replace(".json", "")));
  const read = numbers
    .sort((one, other) => one - other)
    .map(async (number) => {
      const text = await readFile(new URL(`${number}.json`, folder), "utf8");
      const { wordings, names } = JSON.parse(text) as { wordings: string[]; names: string[] };
      // Each stranger's amounts and dates are others; the first one's stay what they were when first measured.
      return [`stranger ${number}`, writeMails(wordings, names, 6, 8 + number)] as const;
    });
  return Object.fromEntries(await Promise.all(read));
}
