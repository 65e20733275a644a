import { printableLine } from "@hone/core";

export interface Point {
  x: number;
  y: number;
  low?: number | undefined;
  high?: number | undefined;
}

export interface Series {
  name: string;
  color: string;
  points: readonly Point[];
  /** Separate measurements: marks with bars, where a line would claim what lies between. */
  marks?: MarkShape | undefined;
}

export const markShapes = ["circle", "square", "diamond"] as const;
type MarkShape = (typeof markShapes)[number];

/** A value to compare with, the same at every step: a dashed line with its name. */
export interface Reference {
  name: string;
  y: number;
}

export interface Panel {
  title: string;
  series: readonly Series[];
  references?: readonly Reference[] | undefined;
  /** Begins the axis at 0. */
  fromZero?: boolean | undefined;
  logarithmic?: boolean | undefined;
}

const width = 440;
const height = 210;
const left = 56;
const right = 14;
const top = 40;
const bottom = 26;

/** Small multiples over the steps of a run, two in a row, as one SVG that needs nothing else. */
export function chart(title: string, panels: readonly Panel[]): string {
  const shown = panels.filter(
    ({ series, references = [] }) =>
      references.length > 0 || series.some(({ points }) => points.length > 0),
  );
  const rows = Math.ceil(shown.length / 2);
  const all = shown.flatMap(({ series }) => series.flatMap(({ points }) => points));
  const steps = all.map(({ x }) => x);
  const last = Math.max(1, ...steps);
  const first = Math.min(last - 1, ...steps);
  const body = shown.map((panel, index) => {
    const x = (index % 2) * width;
    const y = 34 + Math.floor(index / 2) * height;
    return `<g transform="translate(${x} ${y})">${drawPanel(panel, first, last)}</g>`;
  });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${2 * width}" height="${34 + rows * height}" viewBox="0 0 ${2 * width} ${34 + rows * height}" font-family="system-ui, sans-serif" font-size="11" fill="#333">`,
    `<rect width="100%" height="100%" fill="#fff"/>`,
    `<text x="12" y="22" font-size="15" font-weight="600">${escape(title)}</text>`,
    ...body,
    "</svg>\n",
  ].join("\n");
}

function drawPanel(panel: Panel, first: number, last: number): string {
  const scale = scaleOf(panel);
  const legend = legendOf(panel.series);
  const above = top + legend.extraRows * legendRow;
  // Marks stand beside one another: those of the first step would cover the axis.
  const inset = panel.series.some(({ marks }) => marks) ? 10 : 0;
  const x = (step: number) =>
    left + inset + ((step - first) / (last - first || 1)) * (width - left - right - 2 * inset);
  const y = (value: number) => height - bottom - scale.place(value) * (height - above - bottom);
  const grid = scale.ticks.map(
    (tick) =>
      `<line x1="${left}" x2="${width - right}" y1="${round(y(tick))}" y2="${round(y(tick))}" stroke="#e4e4e4"/>` +
      `<text x="${left - 6}" y="${round(y(tick) + 4)}" text-anchor="end" fill="#777">${shortNumber(tick)}</text>`,
  );
  return [
    `<text x="${left}" y="18" font-weight="600">${escape(panel.title)}</text>`,
    legend.drawn,
    ...grid,
    `<text x="${left}" y="${height - 8}" fill="#777">step ${first}</text>`,
    `<text x="${width - right}" y="${height - 8}" text-anchor="end" fill="#777">${last}</text>`,
    ...(panel.references ?? []).map((reference, i) => drawReference(reference, i, y)),
    ...panel.series.map((series, i) =>
      series.marks ? drawMarks(series, i, panel.series.length, x, y) : drawSeries(series, x, y),
    ),
  ].join("");
}

/** Names of lines that lie close together would cover one another at one side. */
function drawReference({ name, y: value }: Reference, i: number, y: (value: number) => number) {
  const [at, anchor] = i % 2 === 0 ? [width - right, "end"] : [left + 4, "start"];
  return (
    `<line x1="${left}" x2="${width - right}" y1="${round(y(value))}" y2="${round(y(value))}" stroke="#777" stroke-dasharray="5 4"/>` +
    `<text x="${at}" y="${round(y(value) - 4)}" text-anchor="${anchor}" fill="#777">${escape(name)}</text>`
  );
}

const legendRow = 13;
const legendRows = 5;

/** One line needs no name beside the panel's title; a mark has no other. */
function legendOf(series: readonly Series[]): { drawn: string; extraRows: number } {
  if (series.length < 2 && !series[0]?.marks) return { drawn: "", extraRows: 0 };
  let x = left;
  let row = 0;
  const names = series.map(({ name, color, marks }) => {
    const space = 22 + 6.2 * name.length;
    if (x > left && x + space > width) {
      x = left;
      row += 1;
    }
    // A plot has to be left.
    if (row >= legendRows) return "";
    const y = 25 + row * legendRow;
    const drawn =
      drawMark(marks ?? "square", x + 4.5, y + 4.5, color) +
      `<text x="${round(x + 13)}" y="${y + 8}" fill="#555">${escape(name)}</text>`;
    x += space;
    return drawn;
  });
  const unnamed = names.filter((drawn) => drawn === "").length;
  if (unnamed > 0) {
    names.push(
      `<text x="${width - right}" y="18" text-anchor="end" fill="#777">${unnamed} more</text>`,
    );
  }
  return { drawn: names.join(""), extraRows: Math.min(row, legendRows - 1) };
}

function drawMark(shape: MarkShape, x: number, y: number, color: string): string {
  const r = shape === "circle" ? 3.5 : 4.5;
  const [cx, cy] = [round(x), round(y)];
  if (shape === "circle") return `<circle cx="${cx}" cy="${cy}" r="${r}" fill="${color}"/>`;
  const corners =
    shape === "square"
      ? `M${-r} ${-r}H${r}V${r}H${-r}Z`
      : `M0 ${-r * 1.2}L${r * 1.2} 0L0 ${r * 1.2}L${-r * 1.2} 0Z`;
  return `<path transform="translate(${cx} ${cy})" d="${corners}" fill="${color}"/>`;
}

/** Series stand a little beside one another: several are measured after the same step. */
function drawMarks(
  { points, color, marks = "circle" }: Series,
  i: number,
  of: number,
  x: (step: number) => number,
  y: (value: number) => number,
): string {
  const aside = (i - (of - 1) / 2) * Math.min(7, 16 / Math.max(1, of - 1));
  return points
    .map((point) => {
      const centre = round(x(point.x) + aside);
      const bar =
        point.low === undefined || point.high === undefined
          ? ""
          : `<line x1="${centre}" x2="${centre}" y1="${round(y(point.low))}" y2="${round(y(point.high))}" stroke="${color}" stroke-width="1.5"/>`;
      return bar + drawMark(marks, centre, y(point.y), color);
    })
    .join("");
}

function drawSeries(
  { points, color }: Series,
  x: (step: number) => number,
  y: (value: number) => number,
): string {
  const at = (step: number, value: number) => `${round(x(step))},${round(y(value))}`;
  const banded = points.filter((point) => point.low !== undefined && point.high !== undefined);
  const band =
    banded.length > 1
      ? `<polygon fill="${color}" fill-opacity="0.15" points="${[
          ...banded.map((point) => at(point.x, point.high ?? point.y)),
          ...banded.toReversed().map((point) => at(point.x, point.low ?? point.y)),
        ].join(" ")}"/>`
      : "";
  const dots =
    points.length === 1
      ? `<circle cx="${round(x(points[0]?.x ?? 0))}" cy="${round(y(points[0]?.y ?? 0))}" r="2.5" fill="${color}"/>`
      : "";
  const line = points.map((point) => at(point.x, point.y)).join(" ");
  return `${band}<polyline fill="none" stroke="${color}" stroke-width="1.8" points="${line}"/>${dots}`;
}

interface Scale {
  /** From 0 at the bottom to 1 at the top. */
  place(value: number): number;
  ticks: number[];
}

function scaleOf({ series, references = [], fromZero, logarithmic }: Panel): Scale {
  const values = [
    ...series.flatMap(({ points }) =>
      points.flatMap(({ y, low, high }) => [y, low ?? y, high ?? y]),
    ),
    ...references.map(({ y }) => y),
  ];
  if (logarithmic) {
    const exponents = values.filter((value) => value > 0).map(Math.log10);
    const least = Math.floor(Math.min(...exponents));
    const most = Math.max(least + 1, Math.ceil(Math.max(...exponents)));
    const every = Math.ceil((most - least) / 4);
    return {
      place: (value) => (value > 0 ? Math.max(0, (Math.log10(value) - least) / (most - least)) : 0),
      ticks: Array.from(
        { length: Math.floor((most - least) / every) + 1 },
        (_, i) => 10 ** (least + i * every),
      ),
    };
  }
  let least = Math.min(...values, ...(fromZero ? [0] : []));
  let most = Math.max(...values);
  if (least === most) {
    least -= fromZero && least === 0 ? 0 : Math.abs(least) * 0.1 || 0.5;
    most += Math.abs(most) * 0.1 || 0.5;
  }
  const step = niceStep((most - least) / 3);
  const from = Math.floor(least / step) * step;
  const to = Math.ceil(most / step) * step;
  const count = Math.round((to - from) / step);
  return {
    place: (value) => (value - from) / (to - from),
    ticks: Array.from({ length: count + 1 }, (_, i) => from + i * step),
  };
}

/** 1, 2 or 5 times a power of ten. */
function niceStep(rough: number): number {
  const power = 10 ** Math.floor(Math.log10(rough));
  const digit = rough / power;
  return power * (digit <= 1 ? 1 : digit <= 2 ? 2 : digit <= 5 ? 5 : 10);
}

function shortNumber(value: number): string {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 10_000 || size < 0.001) return value.toExponential(0).replace("e+", "e");
  return String(Number(value.toPrecision(3)));
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}

function escape(text: string): string {
  return printableLine(text)
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll('"', "&quot;");
}
