/** The house in which every agent of the matrix looks for a key. */
export const instructions = "You find the key. Look first, then open.";
export const question = "Where is the key?";

export const found: Readonly<Record<string, string>> = { hall: "a chest", chest: "a key" };

/** Throws where there is nothing: each framework tells the model so in its own way. */
function find(name: string): string {
  const thing = found[name];
  if (thing === undefined) throw new Error(`There is no ${name}.`);
  return thing;
}

export const look = ({ where }: { where: string }): string => find(where);
export const open = ({ what }: { what: string }): string => find(what);

export const describe = { look: "Looks around in a place.", open: "Opens a thing." };

/** Frameworks that take JSON Schema get these. */
export const schemas = {
  look: parameters("where", ["attic", "hall"]),
  open: parameters("what", ["chest"]),
};

function parameters(name: string, values: string[]) {
  return {
    type: "object" as const,
    properties: { [name]: { type: "string", enum: values } },
    required: [name],
    additionalProperties: false,
  };
}

/** Runs a call for agents that keep their own loop; an error becomes the result. */
export function result(name: string, args: string): string {
  try {
    const given = JSON.parse(args) as { where: string; what: string };
    return name === "look" ? look(given) : open(given);
  } catch (error) {
    return `Error: ${(error as Error).message}`;
  }
}
