/**
 * The id of an answer in the ledger, by the id that its response has: each dialect has its own before the same digits,
 * and Responses have marks behind them. Any other text is given back as it is.
 */
export function answerIdOf(responseId: string): string {
  const [, own] = /^(?:chatcmpl|msg|resp)_([0-9a-f]+)(?:_iu?|_u)?$/.exec(responseId) ?? [];
  return own === undefined ? responseId : `cmpl_${own}`;
}
