interface Dispatcher {
  dispatch(options: object, handler: object): boolean;
}

/**
 * Node's fetch ends a request after 300 s without headers, or without a byte, whatever limit its caller
 * has set. With this init it waits as long as the caller does: all else goes through the same dispatcher
 * as before (a proxy, a mock). Other runtimes have no such limit, and do not look at the option.
 */
export function patientRequest<T extends object>(init: T): T {
  // A dispatcher of the caller's own (a proxy, a private authority) has its own limits.
  if ("dispatcher" in init && init.dispatcher) return init;
  // To look for one of the web's classes loads Node's fetch, and with it the dispatcher.
  const found = loaded() && (inPlace(1) ?? inPlace(2));
  return found ? { ...init, dispatcher } : init;
}

function loaded(): boolean {
  return (globalThis as { Headers?: unknown }).Headers !== undefined;
}

function inPlace(generation: number): Dispatcher | undefined {
  const places = globalThis as Record<symbol, Dispatcher | undefined>;
  return places[Symbol.for(`undici.globalDispatcher.${generation}`)];
}

const dispatcher: Dispatcher = {
  dispatch(options, handler) {
    // The fetch that is built into Node and an installed undici may be of two generations: each has its own place.
    const generation = "onRequestStart" in handler ? 2 : 1;
    const inUse = inPlace(generation);
    if (!inUse) throw new Error("This runtime's fetch has no dispatcher.");
    return inUse.dispatch({ ...options, headersTimeout: 0, bodyTimeout: 0 }, handler);
  },
};
