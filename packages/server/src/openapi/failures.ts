import { errorCodes, type ErrorCode } from "@hone/core";
import {
  admissionErrors,
  bodyErrors,
  guardErrors,
  type ResponseDoc,
  type RouteDoc,
} from "./route-doc.ts";
import { ref, type SchemaName } from "./schemas.ts";

/** `components.responses`, filled as routes are written: many answer with the same codes. */
export type SharedResponses = Record<string, ResponseDoc>;

/** The error responses of a route, by status, with the codes that each may carry. */
export function failures(
  route: RouteDoc,
  shared: SharedResponses,
): Record<string, ResponseDoc | { $ref: string }> {
  const byStatus = new Map<number, ErrorCode[]>();
  for (const code of errorsOf(route)) {
    const { status } = errorCodes[code];
    byStatus.set(status, [...(byStatus.get(status) ?? []), code]);
  }
  const entries = [...byStatus].map(([status, codes]) => {
    const own = route.answers.find((doc) => doc.status === status);
    const shape = route.errorShape ?? "Error";
    if (own) return [String(status), failure(status, codes, shape, own)] as const;
    const name = [status, ...codes, ...(route.errorShape ? [shape] : [])].join(".");
    shared[name] ??= failure(status, codes, shape);
    return [String(status), { $ref: `#/components/responses/${name}` }] as const;
  });
  return Object.fromEntries(entries);
}

function errorsOf(route: RouteDoc): ErrorCode[] {
  const all = new Set<ErrorCode>([
    ...guardErrors,
    ...(route.open ? [] : (["invalid_api_key"] as const)),
    ...(route.path.startsWith("/v1/") ? admissionErrors : []),
    ...(route.body ? bodyErrors : []),
    ...route.errors,
  ]);
  // One order, so that equal sets have one name.
  return (Object.keys(errorCodes) as ErrorCode[]).filter((code) => all.has(code));
}

function failure(
  status: number,
  codes: readonly ErrorCode[],
  shape: SchemaName,
  own?: RouteDoc["answers"][number],
): ResponseDoc {
  const envelope = {
    allOf: [ref(shape), { properties: { error: { properties: { code: { enum: codes } } } } }],
  };
  const named = codes.map((code) => `\`${code}\``).join(", ");
  return {
    description: own ? `${own.description} Or an error: ${named}` : named,
    headers: {
      "x-request-id": { $ref: "#/components/headers/RequestId" },
      "x-should-retry": { $ref: "#/components/headers/ShouldRetry" },
      ...([429, 502, 503].includes(status) && {
        "retry-after-ms": { $ref: "#/components/headers/RetryAfter" },
      }),
    },
    content: {
      "application/json": {
        schema: own?.json && own.json !== "any" ? { anyOf: [ref(own.json), envelope] } : envelope,
      },
    },
  };
}
