/** What stands where a key would. */
export const hiddenKey = "[hidden]";

// Node's symbol for what `console.log` shows of an object; core has the types of no platform.
const inspect = Symbol.for("nodejs.util.inspect.custom");

type Printed = Record<PropertyKey, unknown>;

/**
 * The same object, which can be read and spread as before and shows its key to no console and no log: `apiKey`
 * is a getter, what Node prints has "[hidden]" in its place, and JSON has none of it. A copy by spread hides it
 * from `console.log` too; its JSON is its owner's affair.
 */
export function hideKey<T extends { apiKey: string }>(object: T): T {
  const { apiKey } = object;
  return Object.defineProperties(object, {
    apiKey: { enumerable: true, configurable: true, get: () => apiKey },
    [inspect]: {
      // So that a spread takes it along.
      enumerable: true,
      configurable: true,
      value(
        this: Printed,
        depth: number,
        options: object,
        print: (o: object, how: object) => string,
      ) {
        if (depth < 0) return "[Object]";
        const { [inspect]: _, ...rest } = this;
        const like = Object.create(Object.getPrototypeOf(this) as object | null) as Printed;
        return print(Object.assign(like, rest, { apiKey: hiddenKey }), options);
      },
    },
    toJSON: {
      enumerable: false,
      configurable: true,
      value(this: Printed) {
        const { apiKey: _, ...rest } = this;
        return rest;
      },
    },
  });
}
