// A measure over time: learned world and oracle, of one branch or of two.

import { h, number, s, withUnit } from "./dom.js";

const W = 300,
  H = 130,
  LEFT = 40,
  RIGHT = 8,
  TOP = 8,
  BOTTOM = 20;

function span(values, least) {
  let low = Math.min(...values),
    high = Math.max(...values);
  if (high - low < least) {
    const middle = (high + low) / 2;
    low = middle - least / 2;
    high = middle + least / 2;
  }
  const room = (high - low) * 0.08;
  return [low - room, high + room];
}

function ticks(low, high, count) {
  const rough = (high - low) / count,
    power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((m) => m >= rough);
  const found = [];
  for (let x = Math.ceil(low / step) * step; x <= high + step * 1e-9; x += step) found.push(Number(x.toPrecision(10)));
  return found;
}

const path = (points) => points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");

// Points in runs without a gap.
function runs(points) {
  const found = [[]];
  for (const point of points) {
    if (point.value === null || point.value === undefined) found.push([]);
    else found.at(-1).push(point);
  }
  return found.filter((run) => run.length);
}

// series: [{style, name, points: [{time, value, sd}]}]; now: the time shown; end: of the axis.
export function trend(row, series, clock, now, end) {
  const known = series.flatMap((one) => one.points.map((p) => p.value).filter((v) => v !== null && v !== undefined));
  const last = series.map((one) => {
    const here = one.points.filter((p) => p.time <= now + 1e-9).at(-1);
    return `${one.name} ${withUnit(number(here?.value ?? null, row.digits), row.unit)}`;
  });
  const caption = h(
    "figcaption",
    {},
    h("b", {}, row.label),
    row.unit ? ` (${row.unit})` : "",
    h("br"),
    h("span", { class: "muted" }, last.join("; ")),
  );
  if (!known.length) return h("figure", {}, caption, h("p", { class: "muted" }, "Not known yet."));
  const [low, high] = span(known, row.least_span);
  const x = (t) => LEFT + ((W - LEFT - RIGHT) * t) / end;
  const y = (v) => H - BOTTOM - ((H - TOP - BOTTOM) * (v - low)) / (high - low);
  const inside = (v) => Math.min(Math.max(y(v), TOP), H - BOTTOM);
  const parts = [];
  if (row.normal) {
    const [from, to] = row.normal.map(inside);
    parts.push(s("rect", { class: "normal", x: LEFT, y: to, width: W - LEFT - RIGHT, height: Math.max(from - to, 0) }));
  }
  for (const value of ticks(low, high, 3))
    parts.push(
      s("path", { class: "axis", d: `M${LEFT} ${y(value)}H${W - RIGHT}` }),
      s("text", { class: "tick", x: LEFT - 4, y: y(value) + 3, "text-anchor": "end" }, String(value).replace("-", "−")),
    );
  for (const value of ticks(0, end, 5).filter((t) => x(t) < W - RIGHT - 8 * clock.length))
    parts.push(s("text", { class: "tick", x: x(value), y: H - 6, "text-anchor": "middle" }, value));
  parts.push(s("text", { class: "tick", x: W - RIGHT, y: H - 6, "text-anchor": "end" }, clock));
  if (row.limit !== null && row.limit !== undefined && row.limit > low && row.limit < high)
    parts.push(s("path", { class: "limit", d: `M${LEFT} ${y(row.limit)}H${W - RIGHT}` }));
  parts.push(s("path", { class: "now", d: `M${x(now)} ${TOP}V${H - BOTTOM}` }));
  for (const one of series) {
    for (const run of runs(one.points)) {
      const sd = run.map((p) => p.sd);
      if (one.band && run.length > 1 && sd.every((d) => d > 0)) {
        const up = run.map((p) => [x(p.time), inside(p.value + p.sd)]);
        const down = run.map((p) => [x(p.time), inside(p.value - p.sd)]).reverse();
        parts.push(s("path", { class: "band", d: `${path([...up, ...down])}Z` }));
      }
      const points = run.map((p) => [x(p.time), y(p.value)]);
      parts.push(s("path", { class: `line ${one.style}`, d: path(points) }));
      const [px, py] = points.at(-1);
      parts.push(s("circle", { class: `dot ${one.style}`, cx: px, cy: py, r: 3 }));
    }
  }
  const label = `${row.label} over time: ${last.join("; ")}`;
  return h("figure", {}, caption, s("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": label }, parts));
}

export const sample = (style) =>
  s("svg", { viewBox: "0 0 34 12", "aria-hidden": "true" }, s("path", { class: `line ${style}`, d: "M1 6H33" }));
