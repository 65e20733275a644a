import type { CallToolResult } from "@modelcontextprotocol/client";

/** What a tool gave as a text for a model. What is too long is cut, and a note says how much is left out. */
export function resultText(
  result: CallToolResult,
  mostCharacters: number,
  shown: (text: string) => string = (text) => text,
): string {
  const parts = result.content.map(partText);
  // Servers repeat structured results as text, but need not.
  if (parts.length === 0 && result.structuredContent) {
    parts.push(JSON.stringify(result.structuredContent));
  }
  const text = shown(parts.join("\n")) || "(nothing)";
  const cut = cutTo(text, mostCharacters);
  return result.isError ? errorText(cut) : cut;
}

export function errorText(message: string): string {
  return JSON.stringify({ error: message });
}

function partText(part: CallToolResult["content"][number]): string {
  switch (part.type) {
    case "text":
      return part.text;
    case "image":
    case "audio":
      return `(${part.type}, ${part.mimeType}, ${part.data.length} characters of base64: not shown)`;
    case "resource":
      return "text" in part.resource
        ? part.resource.text
        : `(resource ${part.resource.uri}: not shown)`;
    case "resource_link":
      return `(resource ${part.uri})`;
    default:
      return "(a part of an unknown kind: not shown)";
  }
}

function cutTo(text: string, mostCharacters: number): string {
  if (text.length <= mostCharacters) return text;
  // Not through the middle of a character.
  const kept = text.slice(0, mostCharacters).replace(/[\uD800-\uDBFF]$/, "");
  const left = text.length - kept.length;
  return `${kept}\n(${left} of ${text.length} characters are left out. Ask for less.)`;
}
