/**
 * Says now and then that a start goes on: a large base is read for a minute, and vLLM takes several. Gives what ends it.
 */
export function tellWhileStarting(
  say: (line: string) => void,
  { firstMs = 10_000, thenMs = 30_000 } = {},
): () => void {
  const began = performance.now();
  const tell = (): void => {
    const seconds = Math.round((performance.now() - began) / 1000);
    say(`hone: starting, for ${seconds} s so far (--log-level info tells what is being done)`);
    timer = setTimeout(tell, thenMs).unref();
  };
  let timer = setTimeout(tell, firstMs).unref();
  return () => clearTimeout(timer);
}
