// The held-out score over the seconds of training: a thin line for each run, a thick one for the median.
import { curveOf, medianCurve, type JudgedRun, type Point } from "./summary.ts";
import type { Contender } from "./run-record.ts";

export interface Picture {
  title: string;
  label: string;
  goal: number;
  references: readonly { name: string; score: number }[];
}

const size = { width: 720, height: 380 };
const edge = { left: 56, right: 18, top: 62, bottom: 42 };
const look: Record<Contender, { name: string; color: string }> = {
  hone: { name: "Hone", color: "#0b6e99" },
  trl: { name: "TRL GRPOTrainer", color: "#c2571a" },
};

export function draw(
  { title, label, goal, references }: Picture,
  runs: Record<Contender, JudgedRun[]>,
): string {
  const curves = [...runs.trl, ...runs.hone].map(curveOf);
  const points = curves.flat();
  const ticksX = ticks(0, Math.max(...points.map(({ seconds }) => seconds)), 6);
  const scores = [...points.map(({ score }) => score), ...references.map(({ score }) => score)];
  const ticksY = ticks(Math.min(...scores), Math.max(...scores), 5);
  const x = scale(ticksX, edge.left, size.width - edge.right);
  const y = scale(ticksY, size.height - edge.bottom, edge.top);
  const line = (curve: readonly Point[], style: string): string =>
    `<polyline fill="none" ${style} points="${curve
      .map(({ seconds, score }) => `${round(x(seconds))},${round(y(score))}`)
      .join(" ")}"/>`;
  const drawn = (["trl", "hone"] as const).flatMap((contender) => {
    const { color } = look[contender];
    return [
      ...runs[contender].map((run) =>
        line(curveOf(run), `stroke="${color}" stroke-opacity="0.4" stroke-width="1"`),
      ),
      line(medianCurve(runs[contender]), `stroke="${color}" stroke-width="2.6"`),
    ];
  });
  const level = (score: number, name: string): string =>
    `<line x1="${edge.left}" x2="${size.width - edge.right}" y1="${round(y(score))}" y2="${round(y(score))}" stroke="#888" stroke-dasharray="4 4"/>` +
    `<text x="${size.width - edge.right}" y="${round(y(score) - 4)}" text-anchor="end" fill="#777">${escape(name)}</text>`;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${size.width}" height="${size.height}" viewBox="0 0 ${size.width} ${size.height}" font-family="system-ui, sans-serif" font-size="12" fill="#333">`,
    `<rect width="100%" height="100%" fill="#fff"/>`,
    `<text x="12" y="22" font-size="15" font-weight="600">${escape(title)}</text>`,
    `<text x="12" y="42" fill="#555">${escape(label)}</text>`,
    ...(["hone", "trl"] as const).map((contender, index) => {
      const at = size.width - 220 + index * 75;
      return `<rect x="${at}" y="13" width="10" height="10" fill="${look[contender].color}"/><text x="${at + 15}" y="22">${look[contender].name}</text>`;
    }),
    ...ticksY.map(
      (tick) =>
        `<line x1="${edge.left}" x2="${size.width - edge.right}" y1="${round(y(tick))}" y2="${round(y(tick))}" stroke="#e6e6e6"/>` +
        `<text x="${edge.left - 7}" y="${round(y(tick) + 4)}" text-anchor="end" fill="#777">${plain(tick)}</text>`,
    ),
    ...ticksX.map(
      (tick) =>
        `<text x="${round(x(tick))}" y="${size.height - 22}" text-anchor="middle" fill="#777">${plain(tick)}</text>`,
    ),
    `<text x="${size.width - edge.right}" y="${size.height - 6}" text-anchor="end" fill="#777">seconds of training</text>`,
    ...references.map(({ name, score }) => level(score, name)),
    level(goal, "score to reach"),
    ...drawn,
    "</svg>\n",
  ].join("\n");
}

/** Round numbers that hold the range. */
function ticks(low: number, high: number, about: number): number[] {
  const rough = (high - low || 1) / about;
  const power = 10 ** Math.floor(Math.log10(rough));
  const digit = rough / power;
  const step = power * (digit <= 1 ? 1 : digit <= 2 ? 2 : digit <= 5 ? 5 : 10);
  const first = Math.floor(low / step);
  const last = Math.ceil(high / step);
  return Array.from({ length: last - first + 1 }, (_, index) => (first + index) * step);
}

function scale(of: readonly number[], from: number, to: number): (value: number) => number {
  const low = of[0] ?? 0;
  const high = of.at(-1) ?? 1;
  return (value) => from + ((value - low) / (high - low || 1)) * (to - from);
}

function plain(value: number): string {
  return String(Number(value.toFixed(6)));
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}

function escape(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll('"', "&quot;");
}
