/**
 * The response, whose body ends with an error as soon as the signal aborts, and its connection with it. Node's fetch
 * holds a request only weakly once its headers are there: after the garbage collector has taken it, an abort is lost,
 * and the answer goes on to its end. This listener stays. (`pipeThrough` with a signal is no help: it first waits until
 * somebody has read what is under way.)
 */
export function endedBy(signal: AbortSignal, response: Response): Response {
  if (!response.body) return response;
  const reader = response.body.getReader();
  let end = (): void => undefined;
  const body = new ReadableStream<Uint8Array>(
    {
      start(controller) {
        end = () => {
          controller.error(signal.reason);
          // The connection may have failed by now.
          reader.cancel(signal.reason).catch(() => undefined);
        };
        signal.addEventListener("abort", end, { once: true });
        if (signal.aborted) end();
      },
      async pull(controller) {
        try {
          const { done, value } = await reader.read();
          if (signal.aborted) return;
          if (!done) return controller.enqueue(value);
          controller.close();
        } catch (error) {
          controller.error(error);
        }
        signal.removeEventListener("abort", end);
      },
      async cancel(reason) {
        signal.removeEventListener("abort", end);
        await reader.cancel(reason);
      },
    },
    { highWaterMark: 0 },
  );
  const { status, statusText, headers } = response;
  return new Response(body, { status, statusText, headers });
}
