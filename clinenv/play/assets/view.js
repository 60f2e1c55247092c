// What the page shows of a session: the patient, the course over time, and a card for each branch that is looked at.

import { sample, trend } from "./charts.js";
import { h, number, signed, withUnit } from "./dom.js";

// A page without a server has the learned world alone.
export const roles = (session) => Object.keys(session.worlds);
export const letter = (id) => String.fromCharCode(65 + id);

const sum = (moments, role, name) => moments.reduce((all, moment) => all + (moment[role][name] ?? 0), 0);

export function when(setting, time) {
  return setting.clock === "h" ? `hour ${number(time, 0)}` : `year ${number(time, 1)}`;
}

export function roleName(session, role) {
  const world = session.worlds[role];
  return role === "oracle" ? `oracle (${world.name})` : `learned world (${world.name})`;
}

export function who(session) {
  const facts = session.facts.map(([what, value]) => h("div", {}, h("dt", {}, what), h("dd", {}, value)));
  const worlds = roles(session).map((role) => {
    const { name, sha256, hours_per_step: hours } = session.worlds[role];
    const what = role === "learned" ? "learned from simulated or recorded patients" : "mechanistic, known truth";
    const weights = sha256 ? [", weights ", h("code", {}, sha256)] : ", no weights";
    const seen = session.seen === role ? " You see this world's chart." : "";
    return h("li", {}, h("b", {}, name), ` (${what}), steps of ${Math.round(hours)} h`, weights, ".", seen);
  });
  const both = roles(session).length > 1;
  return [
    h("dl", { class: "facts" }, facts),
    h(
      "details",
      {},
      h(
        "summary",
        {},
        `Which worlds: ${session.worlds.learned.name} (weights ${session.worlds.learned.sha256?.slice(0, 12) ?? "unsealed"}) ${both ? `beside ${session.worlds.oracle.name}` : "alone"}`,
      ),
      h("ul", {}, worlds),
      h(
        "p",
        { class: "muted" },
        (both ? "Both have the same patient, the same luck and the same orders. " : "") +
          "The learned world is told what the oracle's admission chart shows, as a clinician would be; what no chart " +
          "shows it has to guess.",
      ),
    ),
    ...(session.plans ? [plans(session)] : []),
  ];
}

// What the oracle gave this patient under plans that were tried beforehand.
function plans(session) {
  const rows = session.plans.map(({ plan, reward, cost }) =>
    h("tr", {}, h("th", { scope: "row" }, plan), h("td", {}, number(reward, 2)), h("td", {}, number(cost, 0))),
  );
  const head = ["Plan", "Return", "Safety cost"].map((name) => h("th", { scope: "col" }, name));
  return h(
    "details",
    { id: "plans" },
    h("summary", {}, "What the oracle gave this patient, tried beforehand"),
    h("table", {}, h("thead", {}, h("tr", {}, head)), h("tbody", {}, rows)),
  );
}

function rowsOverTime(setting, session, moments) {
  if (setting.trend.length) return setting.trend.map((key) => setting.rows.find((row) => row.key === key));
  const moved = (row) => {
    const values = roles(session).flatMap((role) => moments.map((m) => m[role].values[row.key] ?? 0));
    return Math.max(...values) - Math.min(...values);
  };
  const read = setting.rows.filter((row) => row.key.startsWith("probe_"));
  return [...read].sort((a, b) => moved(b) - moved(a)).slice(0, 6);
}

function running(moments, role, name) {
  let total = 0;
  return moments.map((moment) => ({ time: moment[role].time, value: (total += moment[role][name] ?? 0) }));
}

export function trends(setting, session, shown, other, step) {
  const branches = [shown, ...(other ? [other] : [])];
  const moments = branches.flatMap((branch) => branch.moments);
  const now = shown.moments[step][session.seen].time;
  const last = Math.max(...moments.flatMap((m) => roles(session).map((role) => m[role].time)));
  const end = Math.max(last, setting.clock === "h" ? 24 : 1);
  const lines = (points) =>
    branches.flatMap((branch, i) =>
      roles(session).map((role) => ({
        style: i ? `${role}-2` : role,
        name: `${branches.length > 1 ? `${letter(branch.id)} ` : ""}${role}`,
        band: i === 0 && role === "learned",
        points: points(branch.moments, role),
      })),
    );
  const values = (row) =>
    lines((these, role) =>
      these.map((m) => ({
        time: m[role].time,
        value: m[role].values[row.key] ?? null,
        sd: m[role].spread[row.key] ?? null,
      })),
    );
  const totals = [
    ["reward", `Return so far`, setting.reward_unit],
    ["cost", "Safety cost so far", ""],
  ];
  const key = lines(() => []).map((line) => h("span", {}, sample(line.style), line.name));
  const band = "blue band: one SD of the learned world's own doubt";
  const normal = setting.rows.some((row) => row.normal) ? "; green band: reference range" : "";
  return {
    key: [...key, h("span", {}, band + normal)],
    figures: [
      ...totals.map(([name, label, unit]) =>
        trend(
          { label, unit, digits: 2, least_span: 0.1 },
          lines((these, role) => running(these, role, name)),
          setting.clock,
          now,
          end,
        ),
      ),
      ...rowsOverTime(setting, session, moments).map((row) => trend(row, values(row), setting.clock, now, end)),
    ],
  };
}

export function outcome(setting, session, branch) {
  const last = branch.moments.at(-1);
  const seen = last[session.seen];
  const totals = roles(session).map((role) => sum(branch.moments, role, "reward"));
  const cost = roles(session).map((role) => sum(branch.moments, role, "cost"));
  const promised = `Branch ${letter(branch.id)}: the learned world promised ${number(totals[0], 2)} ${setting.reward_unit}`;
  const said =
    totals.length > 1
      ? `${promised}, the oracle gave ${number(totals[1], 2)}; difference ${signed(totals[0] - totals[1], 2)}. ` +
        `Safety cost ${number(cost[0], 1)} and ${number(cost[1], 1)}.`
      : `${promised}. Safety cost ${number(cost[0], 1)}.`;
  if (seen.end === null) return [h("p", {}, said)];
  const why = seen.end === "truncated" ? "its time is up" : "it ended by itself";
  const parts = roles(session).filter((role) => last[role].truth.length).map((role) =>
    h(
      "p",
      {},
      h("b", {}, `In the ${role === "oracle" ? "oracle" : "learned world"}: `),
      last[role].truth.map(([what, value]) => `${what.toLowerCase()}: ${value}`).join("; "),
      ".",
    ),
  );
  return [
    h("p", {}, h("b", {}, `The course is over at ${when(setting, seen.time)}: ${why}.`)),
    h("p", {}, said),
    ...parts,
  ];
}

function comparison(setting, session, moment) {
  const { learned, oracle } = moment;
  const columns = oracle ? 4 : 2;
  const body = [];
  let group = null;
  for (const row of setting.rows) {
    const [a, b] = [learned.values[row.key] ?? null, oracle?.values[row.key] ?? null];
    if (a === null && b === null) continue;
    if (row.group !== group)
      body.push(h("tr", { class: "group" }, h("th", { colspan: columns, scope: "rowgroup" }, (group = row.group))));
    const off = (v) => row.normal && v !== null && (v < row.normal[0] || v > row.normal[1]);
    const cell = (v, role) => {
      const age = moment[role].values[`age_${row.key}`];
      const old = age > 0 ? h("span", { class: "muted" }, ` (${number(age, 0)} h ago)`) : null;
      return h(
        "td",
        { class: off(v) ? "off" : null },
        number(v, row.digits),
        off(v) ? (v > row.normal[1] ? " ↑" : " ↓") : "",
        old,
      );
    };
    const difference = a === null || b === null ? "–" : withUnit(signed(a - b, row.digits), row.unit);
    body.push(
      h(
        "tr",
        {},
        h("th", { scope: "row" }, withUnit(row.label, row.unit && `(${row.unit})`)),
        cell(a, "learned"),
        ...(oracle ? [cell(b, "oracle"), h("td", {}, difference)] : []),
      ),
    );
  }
  for (const name of Object.keys(learned.terms)) {
    if (body.at(-1).dataset.terms === undefined && !body.some((tr) => tr.dataset.terms))
      body.push(
        h(
          "tr",
          { class: "group", "data-terms": "1" },
          h("th", { colspan: columns, scope: "rowgroup" }, `Reward of the last step (${setting.reward_unit})`),
        ),
      );
    const [a, b] = [learned.terms[name], oracle?.terms[name] ?? null];
    const difference = b === null ? "–" : signed(a - b, 3);
    const words = name.replaceAll("_", " ").replace(/^qt\b/, "QT");
    body.push(
      h(
        "tr",
        {},
        h("th", { scope: "row" }, words[0].toUpperCase() + words.slice(1)),
        h("td", {}, number(a, 3)),
        ...(oracle ? [h("td", {}, number(b, 3)), h("td", {}, difference)] : []),
      ),
    );
  }
  const head = ["Measure", "Learned promised", "Oracle gave", "Difference"].slice(0, columns).map((name) =>
    h("th", { scope: "col" }, name),
  );
  return h(
    "table",
    {},
    h("caption", {}, oracle ? "Chart: what was promised and what came" : "Chart in the learned world"),
    h("thead", {}, h("tr", {}, head)),
    h("tbody", {}, body),
  );
}

function log(setting, session, branch, step) {
  const lines = [];
  for (let i = 1; i <= step; i++) {
    const before = branch.moments[i - 1][session.seen],
      after = branch.moments[i][session.seen];
    const refused = after.refused.map(([what, why]) => `not carried out: ${what} (${why})`);
    lines.push(
      h("li", {}, [`${when(setting, before.time)}: ${after.given.join(", ") || "nothing"}`, ...refused].join("; ")),
    );
  }
  return h("details", {}, h("summary", {}, `Orders so far (${step})`), h("ol", { class: "log" }, lines));
}

// The card of a branch at a step; `paper` is where its ECG goes.
export function card(setting, session, branch, step, paper) {
  const moment = branch.moments[step];
  const ended = roles(session).filter((role) => moment[role].end !== null && moment[role].time < moment[session.seen].time);
  const notes = ended.map((role) =>
    h(
      "p",
      { class: "muted" },
      `In the ${role === "oracle" ? "oracle" : "learned world"} the course ended at ${when(setting, moment[role].time)}; it stands still there.`,
    ),
  );
  const outside = roles(session).filter((role) => !moment[role].support);
  if (outside.length)
    notes.push(
      h(
        "p",
        { class: "muted" },
        `Outside what the ${outside.map((r) => (r === "oracle" ? "oracle" : "learned world")).join(" and the ")} ${outside.length > 1 ? "were" : "was"} fitted on: an extrapolation.`,
      ),
    );
  const title = `Branch ${letter(branch.id)}, ${when(setting, moment[session.seen].time)}`;
  const region = { class: "scroll", tabindex: 0, role: "region" };
  return h(
    "section",
    { class: "card", "aria-label": title },
    h("h2", {}, title),
    ...notes,
    paper,
    log(setting, session, branch, step),
    h("div", { ...region, "aria-label": `Chart of branch ${letter(branch.id)}` }, comparison(setting, session, moment)),
  );
}
