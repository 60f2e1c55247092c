"use strict";
// Sorts, filters and draws what stands in the page already: no figure is computed here, and nothing is fetched.
(() => {
  const data = JSON.parse(document.getElementById("rows").textContent);
  const colours = JSON.parse(document.getElementById("colours").textContent);
  const table = document.getElementById("board");
  const body = table.tBodies[0];
  const lines = new Map([...body.rows].map((line) => [Number(line.dataset.row), line]));
  const pick = (id) => document.getElementById(id);
  const controls = { id: pick("f-id"), steps: pick("f-steps"), words: pick("f-words") };
  const kinds = [...document.querySelectorAll("input[name=kind]")];

  function fillSteps() {
    const known = [...new Set(data.filter((r) => r.id === controls.id.value).map((r) => r.steps))].sort((a, b) => a - b);
    const kept = Number(controls.steps.value);
    controls.steps.replaceChildren(...known.map((steps) => {
      const row = data.find((r) => r.id === controls.id.value && r.steps === steps);
      const option = document.createElement("option");
      option.value = steps;
      option.textContent = row.length;
      return option;
    }));
    const own = Number(controls.id.selectedOptions[0].dataset.own);
    controls.steps.value = known.includes(kept) ? kept : known.includes(own) ? own : known[known.length - 1];
  }

  function chosen() {
    const words = controls.words.value.toLowerCase().split(/\s+/).filter(Boolean);
    const on = new Set(kinds.filter((box) => box.checked).map((box) => box.value));
    return data.filter((r) => r.id === controls.id.value && r.steps === Number(controls.steps.value) && on.has(r.kind) &&
      words.every((word) => `${r.agent} ${r.chosen} ${r.source} ${r.kind}`.toLowerCase().includes(word)));
  }

  let sorted = { column: "minus_rule", up: false };
  function compare(a, b) {
    const x = a[sorted.column], y = b[sorted.column];
    const none = (v) => v === undefined || v === null || v === "";
    if (none(x) || none(y)) return none(x) - none(y);
    const order = typeof x === "number" ? x - y : String(x).localeCompare(String(y));
    return sorted.up ? order : -order;
  }

  const SVG = "http://www.w3.org/2000/svg";
  function draw(parent, name, attributes, text) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    parent.appendChild(made);
    return made;
  }

  function ticks(low, high) {
    const rough = (high - low) / 4 || 1, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].find((m) => m * power >= rough) * power;
    const found = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(Number((i * step).toPrecision(12)));
    return found;
  }

  function range(values, pad) {
    let low = Math.min(...values), high = Math.max(...values);
    if (!(high > low)) { low -= 1; high += 1; }
    return [low - pad * (high - low), high + pad * (high - low)];
  }

  // What is far worse than nearly all others would press these together: it is drawn at the edge, with an arrow.
  function clipped(values) {
    const all = [...values].sort((a, b) => a - b), high = all[all.length - 1];
    const quarter = all[Math.floor(all.length / 4)], floor = high - 2.5 * Math.max(high - quarter, 1e-9);
    return all.length > 4 && all[0] < floor ? floor : all[0];
  }

  function clip(text, most) { return text.length > most ? `${text.slice(0, most - 1)}…` : text; }

  function forest(target, rows, figure) {
    target.replaceChildren();
    const shown = rows.filter((r) => typeof r[figure] === "number");
    if (!shown.length) return;
    const narrow = target.clientWidth < 520, width = Math.max(260, target.clientWidth || 640);
    const left = narrow ? 128 : 270, line = narrow ? 22 : 26, height = shown.length * line + 34;
    const svg = draw(target, "svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
    const floor = clipped(shown.map((r) => r[figure]));
    const ends = shown.filter((r) => r[figure] >= floor).flatMap((r) => [Math.max(r[`${figure}_low`], floor), r[`${figure}_high`]]);
    const [low, high] = range([...ends, 0], 0.04);
    const x = (v) => left + (Math.min(Math.max(v, low), high) - low) / (high - low) * (width - left - 12);
    for (const tick of ticks(low, high)) {
      draw(svg, "line", { x1: x(tick), x2: x(tick), y1: 2, y2: height - 22, class: "axis" });
      draw(svg, "text", { x: x(tick), y: height - 8, "text-anchor": "middle", class: "muted" }, String(tick));
    }
    draw(svg, "line", { x1: x(0), x2: x(0), y1: 2, y2: height - 22, stroke: "currentColor", "stroke-dasharray": "3 3" });
    shown.forEach((r, i) => {
      const y = 13 + i * line, colour = colours[r.kind], off = r[figure] < low;
      const title = `${r.agent}: ${r[figure].toFixed(3)} [${r[`${figure}_low`].toFixed(3)}, ${r[`${figure}_high`].toFixed(3)}]`;
      const group = draw(svg, "g", {});
      draw(group, "title", {}, title);
      draw(group, "text", { x: 0, y: y + 4 }, clip(r.agent, narrow ? 19 : 42));
      if (off) {
        draw(group, "path", { d: `M${x(low)} ${y}l8 -5v10z`, fill: colour });
        draw(group, "text", { x: x(low) + 12, y: y + 4, class: "muted" }, r[figure].toFixed(1));
        return;
      }
      draw(group, "line", { x1: x(r[`${figure}_low`]), x2: x(r[`${figure}_high`]), y1: y, y2: y, stroke: colour, "stroke-width": 2 });
      draw(group, "circle", { cx: x(r[figure]), cy: y, r: 4.5, fill: colour });
    });
  }

  function scatter(target, rows, across, up, labels, diagonal) {
    target.replaceChildren();
    const all = rows.filter((r) => typeof r[across] === "number" && typeof r[up] === "number");
    if (!all.length) return;
    const floor = clipped(all.map((r) => r[up])), shown = all.filter((r) => r[up] >= floor);
    const width = Math.max(260, target.clientWidth || 420), height = 250, left = 46, bottom = 40;
    const svg = draw(target, "svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
    let [xl, xh] = range(shown.map((r) => r[across]), 0.08), [yl, yh] = range(shown.map((r) => r[up]), 0.08);
    if (diagonal) { xl = yl = Math.min(xl, yl); xh = yh = Math.max(xh, yh); }
    const x = (v) => left + (v - xl) / (xh - xl) * (width - left - 10), y = (v) => height - bottom - (v - yl) / (yh - yl) * (height - bottom - 8);
    for (const tick of ticks(xl, xh)) {
      draw(svg, "line", { x1: x(tick), x2: x(tick), y1: 8, y2: height - bottom, class: "axis" });
      draw(svg, "text", { x: x(tick), y: height - bottom + 15, "text-anchor": "middle", class: "muted" }, String(tick));
    }
    for (const tick of ticks(yl, yh)) {
      draw(svg, "line", { x1: left, x2: width - 10, y1: y(tick), y2: y(tick), class: "axis" });
      draw(svg, "text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end", class: "muted" }, String(tick));
    }
    draw(svg, "text", { x: (left + width) / 2, y: height - 6, "text-anchor": "middle", class: "muted" }, labels[0]);
    draw(svg, "text", { transform: `translate(11 ${(height - bottom) / 2}) rotate(-90)`, "text-anchor": "middle", class: "muted" }, labels[1]);
    if (diagonal) draw(svg, "line", { x1: x(xl), y1: y(yl), x2: x(xh), y2: y(yh), stroke: "currentColor", "stroke-dasharray": "3 3" });
    for (const r of shown) {
      const dot = draw(svg, "circle", { cx: x(r[across]), cy: y(r[up]), r: 5, fill: colours[r.kind], "fill-opacity": 0.8 });
      draw(dot, "title", {}, `${r.agent}: ${r[across].toFixed(3)}, ${r[up].toFixed(3)}`);
    }
    const below = all.filter((r) => r[up] < floor).map((r) => r.agent);
    if (below.length) {
      const note = document.createElement("p");
      note.className = "muted";
      note.textContent = `Far below, not drawn: ${below.join(", ")}`;
      target.appendChild(note);
    }
  }

  function show() {
    const rows = chosen().sort(compare), on = new Set(rows.map((r) => r.row));
    for (const row of rows) body.appendChild(lines.get(row.row));
    for (const [row, line] of lines) line.classList.toggle("hidden", !on.has(row));
    pick("caption").textContent = rows.length ? rows[0].caption : "No agent is left: loosen the filters.";
    const ranked = rows.filter((r) => r.status === "ok").sort((a, b) => b.minus_rule - a.minus_rule);
    forest(pick("plot-minus"), ranked, "minus_rule");
    scatter(pick("plot-gap"), ranked, "promised", "return", ["promised by the learned world", "earned in the oracle"], true);
    scatter(pick("plot-cost"), ranked, "cost", "minus_rule", ["safety cost", "minus the best rule"], false);
  }

  function sortBy(head) {
    const column = head.dataset.column;
    const up = sorted.column === column ? !sorted.up : head.dataset.first === "up";
    sorted = { column, up };
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    show();
  }

  for (const head of table.tHead.rows[0].cells) {
    head.addEventListener("click", () => sortBy(head));
    head.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sortBy(head); } });
  }
  controls.id.addEventListener("change", () => { fillSteps(); show(); });
  controls.steps.addEventListener("change", show);
  controls.words.addEventListener("input", show);
  for (const box of kinds) box.addEventListener("change", show);
  let waiting;
  window.addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(show, 120); });
  document.body.classList.add("scripted"); // one place at a time is shown, and the filter says which
  document.querySelectorAll(".needs-script").forEach((part) => part.classList.remove("hidden"));
  fillSteps();
  show();
})();
