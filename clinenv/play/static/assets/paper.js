// An ECG on paper: the empty sheet was drawn by clinenv.rendering.ecg_paper, the traces are added here as it would.

const median = (values) => {
  const sorted = Float64Array.from(values).sort();
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
};
const escaped = (text) => text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);

// Whole hundredths of a millimetre, relative steps.
function path(points) {
  const at = points.map(([x, y]) => [Math.round(x * 100), Math.round(y * 100)]);
  const steps = at.slice(1).map(([x, y], i) => `${x - at[i][0]} ${y - at[i][1]}`);
  return `M${at[0][0]} ${at[0][1]}l${steps.join(" ")}`;
}

// sheet: of world.json; ecg: [leads x samples] in mV; prefix keeps the ids of two sheets on one page apart.
export function paper(sheet, ecg, title, prefix) {
  const { rate_hz: rate, samples, left_mm, mm_per_s, mm_per_mv, rows_mm, edges_mm } = sheet;
  const traces = sheet.strips.map(([lead, row, start, stop]) => {
    const own = ecg.subarray(lead * samples, (lead + 1) * samples);
    const level = median(own);
    const points = [];
    for (let i = Math.round(start * rate); i < Math.min(Math.round(stop * rate) + 1, samples); i++) {
      const y = rows_mm[row] - mm_per_mv * (own[i] - level);
      points.push([left_mm + (mm_per_s * i) / rate, Math.min(Math.max(y, edges_mm[0]), edges_mm[1])]);
    }
    return path(points);
  });
  return sheet.svg
    .replaceAll("{{TITLE}}", escaped(title))
    .replaceAll("{{PREFIX}}", prefix)
    .replace("{{TRACES}}", traces.join(""));
}
