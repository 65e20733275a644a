type Fetch = typeof globalThis.fetch;
interface Request {
  tools?: { function: { strict?: boolean; parameters?: { $schema?: string } } }[];
}

/**
 * A connection that takes out again what a framework adds to the tools' definitions unasked: `strict`, `$schema`. Only
 * the base of this example needs it, which knows these tools by their very text. Others read them as they come.
 */
export function withPlainTools<Connection extends { fetch: Fetch }>(connection: Connection) {
  const fetch: Fetch = async (input, init) => {
    if (typeof init?.body !== "string") return await connection.fetch(input, init);
    const body = JSON.parse(init.body) as Request;
    for (const { function: tool } of body.tools ?? []) {
      delete tool.strict;
      delete tool.parameters?.$schema;
    }
    return await connection.fetch(input, { ...init, body: JSON.stringify(body) });
  };
  return { ...connection, fetch };
}
