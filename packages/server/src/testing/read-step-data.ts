/** The step data as the worker would read it. */
export function readStepData(body: Uint8Array) {
  const bytes = Buffer.from(body);
  const size = Number(bytes.readBigUInt64LE());
  const header = JSON.parse(bytes.toString("utf8", 8, 8 + size));
  const tensor = (name: string): number[] => {
    const { dtype, data_offsets } = header[name];
    const [from, to] = data_offsets as [number, number];
    const part = bytes.buffer.slice(
      bytes.byteOffset + 8 + size + from,
      bytes.byteOffset + 8 + size + to,
    );
    const Kind = { U8: Uint8Array, I32: Int32Array, F32: Float32Array, F64: Float64Array }[
      dtype as string
    ];
    return Kind ? Array.from(new Kind(part)) : Array.from(new BigInt64Array(part), Number);
  };
  const offsets = tensor("completion_offsets");
  const of = (name: string, at: number) => tensor(name).slice(offsets[at], offsets[at + 1]);
  return {
    config: JSON.parse(header.__metadata__.config),
    tensor,
    /** Of each completion: what came before its answer, its answer. */
    completions: offsets.slice(1).map((_, at) => {
      const sampled = of("sampled", at);
      const ids = of("tokens", at);
      return {
        prompt: ids.filter((_id, i) => !sampled[i]),
        answer: ids.filter((_id, i) => sampled[i]),
        parent: tensor("completion_parent")[at],
        trainable: tensor("completion_trainable")[at],
      };
    }),
  };
}
