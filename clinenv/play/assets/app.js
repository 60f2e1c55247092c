// The page: what is asked of the server, what is looked at, and the keys.

import * as api from "./api.js";
import { at, drawing, h } from "./dom.js";
import { allow, build, given } from "./orders.js";
import { card, letter, outcome, roleName, roles, trends, when, who } from "./view.js";

const KEYS = [
  ["Enter", "in the orders: give them and go on"],
  ["o", "go to the orders"],
  ["g", "give the orders that are chosen"],
  [",", "one step back"],
  [".", "one step on, along what was played"],
  ["b", "branch from the step shown"],
  ["v", "the next branch"],
  ["n", "go to the patient's number"],
  ["e", "go to the ECG or chart of the branch shown; arrows scroll it"],
  ["?", "this list"],
];

let setting,
  session = null,
  busy = false,
  single = true;
let view = { branch: 0, step: 0, other: null, role: "oracle" };

const shown = () => session.branches[view.branch];
const latest = () => shown().moments.length - 1;

function fail(error) {
  at("error").hidden = !error;
  at("error").textContent = error ? error.message : "";
}

// One thing at a time: whoever presses twice is asked to wait by the button, not by two steps.
async function work(doing, task) {
  if (busy) return;
  busy = true;
  fail(null);
  document.body.classList.add("busy");
  at("status").textContent = doing;
  try {
    await task();
  } catch (error) {
    at("status").textContent = "";
    fail(error);
  } finally {
    busy = false;
    document.body.classList.remove("busy");
    document.body.dataset.turn = Number(document.body.dataset.turn ?? 0) + 1;
  }
}

function patientForm() {
  const option = (value, label) => h("option", { value }, label ?? value);
  const worlds = setting.worlds.map((name) =>
    option(name, name === "oracle" ? "oracle (mechanistic)" : `${name} (learned)`),
  );
  const cohorts = Object.entries(setting.cohorts).map(([name, meaning]) => option(name, `${name}: ${meaning}`));
  const fields = [
    h(
      "label",
      {},
      "Patient number (seed)",
      h("input", { type: "number", id: "seed", min: 0, max: setting.most_seed ?? 2 ** 53 - 1, step: 1, value: 1, required: true }),
    ),
    h("label", {}, "Cohort", h("select", { id: "cohort" }, cohorts)),
    h("label", {}, "World whose chart you see", h("select", { id: "world" }, worlds)),
  ];
  if (setting.clock === "h") {
    const lengths = [1, 0.5, 0.25].map((share) => setting.hours * share);
    fields.push(
      h(
        "label",
        {},
        "Longest course",
        h(
          "select",
          { id: "hours" },
          lengths.map((x) => option(x, `${x} h`)),
        ),
      ),
    );
  }
  at("new").replaceChildren(
    h("div", { class: "fields" }, fields, h("button", { type: "submit", class: "main", id: "begin" }, "New patient")),
  );
  at("new").onsubmit = (event) => {
    event.preventDefault();
    work("", newPatient);
  };
}

async function newPatient() {
  const asked = { seed: Number(at("seed").value), cohort: at("cohort").value, world: at("world").value };
  if (at("hours")) asked.hours = Number(at("hours").value);
  at("begin").textContent = "Admitting …";
  try {
    const before = session;
    adopt(await api.begin(asked));
    if (before) api.close(before.session).catch(() => {});
    toOrders();
  } finally {
    at("begin").textContent = "New patient";
  }
}

function adopt(told) {
  session = told;
  history.replaceState(null, "", `#${told.session}`);
  view = { branch: 0, step: told.branches[0].moments.length - 1, other: null, role: setting.ecg ? "oracle" : "" };
  if (setting.ecg && setting.clock === "h") view.role = told.seen;
  at("who").replaceChildren(...who(session));
  for (const id of ["orders-card", "course"]) at(id).hidden = false;
  build(at("orders"), setting.controls, (action) => work("The worlds are asked …", () => step(action)));
  render();
}

async function step(action) {
  if (view.step !== latest()) throw new Error("you look at an earlier step; branch from it, or go to the latest one");
  const moment = await api.order(session.session, view.branch, view.step, action);
  shown().moments.push(moment);
  view.step = latest();
  given(at("orders"));
  render();
}

async function branch() {
  const made = await api.fork(session.session, view.branch, view.step);
  session.branches.push(made);
  view = { ...view, other: view.branch, branch: made.id };
  render();
  toOrders();
}

const toOrders = () => at("orders").querySelector('input[type="radio"]:checked, :not([type="radio"])[name]').focus();

function go(to) {
  view.step = Math.min(Math.max(to, 0), latest());
  render();
}

function choose(id) {
  view = { ...view, branch: id, other: view.other === id ? null : view.other };
  view.step = latest();
  render();
}

function where() {
  const focused = document.activeElement?.id;
  const now = shown().moments[view.step][session.seen];
  const origin = ({ id, parent }) =>
    parent === null
      ? `${letter(id)} (first)`
      : `${letter(id)} (from ${letter(parent.branch)}, ${when(setting, session.branches[parent.branch].moments[parent.step][session.seen].time)})`;
  const options = (chosen, none) => [
    ...(none ? [h("option", { value: "" }, "no other")] : []),
    ...session.branches
      .filter((b) => !none || b.id !== view.branch)
      .map((b) => h("option", { value: b.id, selected: b.id === chosen }, origin(b))),
  ];
  const button = (id, words, task, off) => h("button", { type: "button", id, onclick: task, disabled: off }, words);
  at("where").replaceChildren(
    h(
      "div",
      { class: "row" },
      h(
        "label",
        {},
        "Branch",
        h("select", { id: "branch", onchange: (e) => choose(Number(e.target.value)) }, options(view.branch, false)),
      ),
      h(
        "label",
        {},
        "beside",
        h(
          "select",
          {
            id: "other",
            onchange: (e) => {
              view.other = e.target.value === "" ? null : Number(e.target.value);
              render();
            },
          },
          options(view.other, true),
        ),
      ),
    ),
    h(
      "div",
      { class: "row" },
      h("label", { for: "step" }, `Step ${view.step} of ${latest()}, ${when(setting, now.time)}`),
      h("input", {
        type: "range",
        id: "step",
        min: 0,
        max: Math.max(latest(), 1),
        value: view.step,
        disabled: latest() === 0,
        oninput: (e) => go(Number(e.target.value)),
        "aria-valuetext": when(setting, now.time),
      }),
      button("back", "Back", () => go(view.step - 1), view.step === 0),
      button("on", "On", () => go(view.step + 1), view.step === latest()),
      button("last", "Latest", () => go(latest()), view.step === latest()),
      button("fork", "Branch from here", () => work("Branching …", branch), now.end !== null),
    ),
  );
  if (focused) at(focused)?.focus();
}

function render() {
  const now = shown().moments[view.step][session.seen];
  const other = view.other === null ? null : session.branches[view.other];
  where();
  at("outcome").replaceChildren(...outcome(setting, session, shown()));
  const { key, figures } = trends(setting, session, shown(), other, view.step);
  at("key").replaceChildren(...key);
  at("trends").replaceChildren(...figures);
  const looked = other
    ? [
        [shown(), view.step],
        [other, Math.min(view.step, other.moments.length - 1)],
      ]
    : [[shown(), view.step]];
  at("cards").classList.toggle("two", looked.length > 1);
  at("cards").replaceChildren(...looked.map(([one, k]) => card(setting, session, one, k, paper(one, k))));
  const over = shown().moments.at(-1)[session.seen].end !== null,
    earlier = view.step !== latest();
  // not disabled: a button that loses its focus at the end of a course would trap the keyboard
  at("give").setAttribute("aria-disabled", over || earlier);
  allow(at("orders"), setting.controls, now.allowed);
  const refused = now.refused.map(([what, why]) => `${what} was not carried out: ${why}.`).join(" ");
  const words = over
    ? "The course is over; branch from an earlier step, or take a new patient."
    : earlier
      ? "An earlier step is shown; branch from it to order otherwise."
      : `It is ${when(setting, now.time)}. ${refused}`;
  at("status").textContent = words;
}

function paper(one, k) {
  if (!setting.ecg) return null;
  const place = h(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": `ECG of branch ${letter(one.id)}` },
    h("p", { class: "muted" }, "The ECG is drawn …"),
  );
  const role = view.role;
  const choice = h(
    "div",
    { class: "row" },
    h(
      "label",
      {},
      "ECG drawn by",
      h(
        "select",
        {
          onchange: (e) => {
            view.role = e.target.value;
            render();
          },
        },
        roles(session).map((r) => h("option", { value: r, selected: r === role }, roleName(session, r))),
      ),
    ),
  );
  const session_ = session.session;
  api.ecg(session_, one.id, k, role).then(
    (svg) =>
      place.replaceChildren(
        svg === null
          ? h("p", { class: "muted" }, "This world draws no ECG: it knows its latent alone. The oracle draws one.")
          : drawing(svg),
      ),
    (error) => place.replaceChildren(h("p", { class: "error" }, error.message)),
  );
  return h("div", {}, choice, place);
}

function press(event) {
  if (event.altKey || event.ctrlKey || event.metaKey || !single) return;
  const typing = event.target.matches("input[type=number],input[type=search],textarea,select");
  if (typing || (!session && event.key !== "n" && event.key !== "?")) return;
  const does = {
    o: toOrders,
    g: () => at("orders").requestSubmit(),
    ",": () => go(view.step - 1),
    ".": () => go(view.step + 1),
    b: () => work("Branching …", branch),
    v: () => choose((view.branch + 1) % session.branches.length),
    n: () => at("seed").focus(),
    e: () => at("cards").querySelector(".scroll").focus(),
    "?": () => {
      at("help").open = true;
      at("help").querySelector("summary").focus();
    },
  }[event.key];
  if (!does) return;
  event.preventDefault();
  does();
}

function keys() {
  const rows = KEYS.map(([key, does]) => h("tr", {}, h("td", {}, h("kbd", {}, key)), h("td", { class: "does" }, does)));
  at("keys").replaceChildren(
    h("table", {}, h("tbody", {}, rows)),
    h(
      "p",
      {},
      h(
        "label",
        {},
        h("input", { type: "checkbox", checked: true, onchange: (e) => (single = e.target.checked) }),
        " single letters are keys",
      ),
    ),
    h("p", { class: "muted" }, "Tab and Shift+Tab go through everything, arrows choose, Space switches."),
  );
  document.addEventListener("keydown", press);
}

await work("", async () => {
  setting = await api.setting();
  at("note").textContent = setting.note ?? "";
  patientForm();
  keys();
  const kept = location.hash.slice(1);
  if (kept) await api.look(kept).then(adopt, () => history.replaceState(null, "", "#"));
  if (!session) at("seed").focus();
});
