import { HoneError, issuePath, issueText } from "@hone/core";

/** What a schema of core says of options; `options` names them where they are refused, and `where` their function. */
export function parsedOptions<Options>(
  where: string,
  parsed:
    | { success: true; data: Options }
    | { success: false; error: Parameters<typeof issueText>[0] },
  options = "the options",
): Options {
  if (parsed.success) return parsed.data;
  throw new HoneError(`${where}: ${issueText(parsed.error, options)}.`, {
    code: "invalid_request",
    param: issuePath(parsed.error),
    cause: parsed.error,
  });
}
