// The form in which orders are given: a menu, switches, levels or doses, as the id has them.

import { h } from "./dom.js";

function grouped(entries) {
  const groups = new Map();
  entries.forEach((entry, index) => {
    if (!groups.has(entry.group)) groups.set(entry.group, []);
    groups.get(entry.group).push([entry, index]);
  });
  return groups;
}

const amountOf = (entry) => (entry.unit && entry.amount !== undefined ? ` ${entry.amount} ${entry.unit}` : "");

function menu(entries) {
  const choices = entries.map((entry, i) =>
    h(
      "label",
      { "data-entry": i },
      h("input", { type: "radio", name: "menu", value: i, checked: i === 0 }),
      h("span", {}, entry.label),
    ),
  );
  return [h("fieldset", {}, h("legend", {}, "One of these, now"), h("div", { class: "choices" }, choices))];
}

function input(entry, i, kind) {
  const name = `entry-${i}`;
  const words = h("span", {}, entry.label, h("span", { class: "amount" }, amountOf(entry)));
  if (kind === "switches" || (kind === "levels" && isSwitch(entry)))
    return h("label", { "data-entry": i }, h("input", { type: "checkbox", name }), words);
  if (kind === "levels") {
    const middle = Math.floor(entry.choices.length / 2);
    const options = entry.choices.map((amount, k) =>
      h("option", { value: k, selected: k === middle }, `${amount} ${entry.unit}`),
    );
    return h("label", { "data-entry": i }, words, h("select", { name }, options));
  }
  if (entry.unit === "") return h("label", { "data-entry": i }, h("input", { type: "checkbox", name }), words);
  return h(
    "label",
    { "data-entry": i },
    h("input", { type: "number", name, min: 0, max: entry.highest, step: "any", value: 0 }),
    h("span", {}, `${entry.label}, ${entry.unit} (0 to ${entry.highest})`),
  );
}

const isSwitch = (entry) => entry.choices.length === 2 && entry.choices[0] === 0 && entry.choices[1] === 1;

// Puts the controls into the form; `onsubmit` is called with the action.
export function build(form, controls, onsubmit) {
  const { kind, entries } = controls;
  const parts =
    kind === "menu"
      ? menu(entries)
      : [...grouped(entries)].map(([group, members]) =>
          h(
            "fieldset",
            {},
            h("legend", {}, group),
            h(
              "div",
              { class: "choices" },
              members.map(([entry, i]) => input(entry, i, kind)),
            ),
          ),
        );
  const many = entries.length > 20;
  const find =
    many &&
    h(
      "label",
      { class: "row" },
      "Find an order",
      h("input", { type: "search", id: "find", oninput: (event) => filter(form, entries, event.target.value) }),
    );
  form.replaceChildren(
    ...(find ? [find] : []),
    ...parts,
    h(
      "div",
      { class: "row" },
      h("button", { type: "submit", class: "main", id: "give" }, "Give orders and go on"),
      h(
        "label",
        {},
        h("input", { type: "checkbox", id: "keep", checked: kind === "menu" }),
        "Keep these orders for the next step",
      ),
    ),
  );
  form.onsubmit = (event) => {
    event.preventDefault();
    onsubmit(action(form, controls));
  };
}

function filter(form, entries, words) {
  const wanted = words.trim().toLowerCase();
  for (const label of form.querySelectorAll("[data-entry]")) {
    const entry = entries[Number(label.dataset.entry)];
    label.hidden = !`${entry.label} ${entry.name}`.toLowerCase().includes(wanted);
    label.style.display = label.hidden ? "none" : "";
  }
  for (const group of form.querySelectorAll("fieldset"))
    group.hidden = [...group.querySelectorAll("[data-entry]")].every((label) => label.hidden);
}

function action(form, { kind, entries }) {
  if (kind === "menu") return Number(form.elements.menu.value);
  return entries.map((entry, i) => {
    const field = form.elements[`entry-${i}`];
    if (field.type === "checkbox") return field.checked ? 1 : 0;
    return field.value === "" ? 0 : Number(field.value);
  });
}

// Marks what the chart forbids: its order would not be carried out.
export function allow(form, { kind, entries }, allowed) {
  if (kind === "menu" || !allowed) return;
  let place = 0;
  entries.forEach((entry, i) => {
    const label = form.querySelector(`[data-entry="${i}"]`);
    const refused = kind === "levels" ? isSwitch(entry) && !allowed[place + 1] : !allowed[i];
    place += kind === "levels" ? entry.choices.length : 1;
    label.classList.toggle("refused", refused);
    label.title = refused ? "the chart forbids this now: it would not be carried out" : "";
    label.querySelector("input,select").setAttribute("aria-description", label.title);
  });
}

export function given(form) {
  if (!form.querySelector("#keep").checked) {
    const focused = document.activeElement;
    form.reset();
    focused?.focus();
  }
}
