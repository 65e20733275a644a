import { createHash } from "node:crypto";
import { html, raw } from "hono/html";
import type { OpenApiDocument, Operation } from "./document.ts";
import type { ResponseDoc } from "./route-doc.ts";
import type { JsonSchema } from "./schemas.ts";
import { typeText } from "./type-text.ts";

const style = `
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 small { font-weight: normal; opacity: .6 }
h2 { margin-top: 2.5rem; text-transform: capitalize }
details { border: 1px solid #8884; border-radius: 6px; margin: .4rem 0; padding: .4rem .8rem }
summary { cursor: pointer; overflow-wrap: anywhere }
summary b { display: inline-block; min-width: 3.6rem; font: bold 12px monospace; color: #2a7 }
summary code { font-weight: 600 }
summary span { opacity: .7; margin-left: .6rem }
pre { overflow-x: auto; background: #8881; padding: .6rem; border-radius: 4px; font-size: 13px }
pre i { opacity: .6 }
table { border-collapse: collapse; width: 100% }
td { border-top: 1px solid #8883; padding: .3rem .6rem .3rem 0; vertical-align: top }
td:first-child { width: 3.2rem; font-family: monospace }
`;

/** Nothing is loaded and nothing runs: the page is text. */
export const pageHeaders = {
  "content-security-policy": `default-src 'none'; style-src 'sha256-${createHash("sha256")
    .update(style)
    .digest("base64")}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`,
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "cache-control": "no-cache",
};

/** The document as one HTML page. */
export async function renderPage(document: OpenApiDocument): Promise<string> {
  const { info, tags, paths, components } = document;
  const section = (route: Route) => sectionOf(route, components.responses);
  const routes = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ path, method, operation })),
  );
  return String(
    await html`<!doctype html>
      <html lang="en">
        <head>
          <meta charset="utf-8" />
          <meta name="viewport" content="width=device-width" />
          <title>${info.title}: HTTP API</title>
          ${raw(`<style>${style}</style>`)}
        </head>
        <body>
          <h1>${info.title} <small>HTTP API ${info.version}</small></h1>
          <p>${prose(info.description)}</p>
          <p>
            ${prose(
              "Every route but this page needs `Authorization: Bearer <key>`. The document behind the page is `GET /openapi.json`.",
            )}
          </p>
          ${tags.map(
            ({ name, description }) =>
              html`<h2>${name}</h2>
                <p>${prose(description)}</p>
                ${routes.filter(({ operation }) => operation.tags.includes(name)).map(section)}`,
          )}
          <h2 id="schemas">Schemas</h2>
          ${Object.entries(components.schemas).map(
            ([name, schema]) =>
              html`<details id="schema-${name}">
                <summary><code>${name}</code></summary>
                <pre>${raw(typeText(schema))}</pre>
              </details> `,
          )}
        </body>
      </html> `,
  );
}

interface Route {
  path: string;
  method: string;
  operation: Operation;
}

function sectionOf(route: Route, shared: Record<string, ResponseDoc>) {
  const { path, method, operation } = route;
  const { operationId, summary, description, parameters, requestBody, responses } = operation;
  const resolved = Object.entries(responses).map(([status, response]) => ({
    status,
    response: "$ref" in response ? shared[response.$ref.split("/").at(-1)!]! : response,
  }));
  const body = requestBody?.content["application/json"]?.schema;
  return html`<details id="${operationId}">
    <summary><b>${method.toUpperCase()}</b> <code>${path}</code><span>${summary}</span></summary>
    ${description ? html`<p>${prose(description)}</p>` : ""}
    ${
      parameters
        ? html`<table>
            ${parameters.map(
              (one) =>
                html`<tr>
                  <td>${one.in}</td>
                  <td><code>${one.name}</code></td>
                  <td>${prose(one.description)}</td>
                </tr>`,
            )}
          </table>`
        : ""
    }
    ${
      body
        ? html`<p>Body</p>
            <pre>${raw(typeText(body))}</pre>`
        : ""
    }
    <p>Answers</p>
    <table>
      ${resolved.map(
        ({ status, response }) =>
          html`<tr>
            <td>${status}</td>
            <td>${prose(response.description)}${contents(status, response)}</td>
          </tr>`,
      )}
    </table>
  </details> `;
}

function contents(status: string, { content }: ResponseDoc) {
  if (!status.startsWith("2")) return "";
  return Object.entries(content ?? {}).map(([type, { schema, ...rest }]) => {
    const { description } = schema as { description?: string };
    const data = rest["x-event-data"] as JsonSchema | undefined;
    return html`<pre>${type}: ${raw(typeText(data ?? (schema as JsonSchema)))}</pre>
      ${description ? prose(description) : ""}`;
  });
}

/** Text in which `code` stands between backticks. */
function prose(text: string) {
  return text.split("`").map((part, i) => (i % 2 === 1 ? html`<code>${part}</code>` : part));
}
