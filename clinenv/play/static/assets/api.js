// What the server answers elsewhere, answered in the page: sessions and branches live here until it is closed.

import { paper } from "./paper.js";
import { load } from "./world.js";

const MOST_BRANCHES = 8;
const sessions = new Map();
let world,
  count = 0,
  turn = Promise.resolve();

// One thing at a time: a network runs for one caller.
function alone(task) {
  const mine = turn.then(task);
  turn = mine.catch(() => {});
  return mine;
}

function use(name) {
  const found = sessions.get(name);
  if (!found) throw new Error("this patient is gone: the page keeps nothing; begin with a new patient");
  return found;
}

const told = ({ shown }) => ({ learned: shown });
const toldBranch = ({ id, parent, moments }) => ({ id, parent, moments: moments.map(told) });

function toldSession(name) {
  const { patient, steps, branches } = use(name);
  const about = { ...world.about, steps };
  const { seed, cohort, facts, plans } = patient;
  return {
    session: name,
    seed,
    cohort,
    facts,
    plans,
    seen: "learned",
    worlds: { learned: about },
    branches: branches.map(toldBranch),
  };
}

export async function setting() {
  world = await load();
  return world.setting;
}

export async function begin({ seed, cohort, hours }) {
  const patient = world.patients.find((one) => one.seed === seed && one.cohort === cohort);
  if (!patient)
    throw new Error(
      `this page has no patient ${seed}; give a number from 1 to ${world.setting.most_seed}, or install clinenv, ` +
        "whose clinenv play has them all",
    );
  const steps = Math.round((hours ?? world.setting.hours) / world.about.hours_per_step);
  const name = `patient-${++count}`;
  const first = { state: world.admitted(patient), shown: patient.shown };
  sessions.set(name, { patient, steps, branches: [{ id: 0, parent: null, moments: [first] }] });
  return toldSession(name);
}

export const look = async (name) => toldSession(name);

export const order = (name, branch, step, action) =>
  alone(async () => {
    const { steps, branches } = use(name);
    const { moments } = branches[branch];
    if (step !== moments.length - 1)
      throw new Error(`the course stands at step ${moments.length - 1}, not ${step}; branch from step ${step}`);
    if (moments.at(-1).shown.end !== null)
      throw new Error("this course is over; branch from an earlier step, or take a new patient");
    const after = await world.step(moments.at(-1).state, action);
    if (after.shown.end === null && moments.length >= steps) after.shown.end = "truncated";
    moments.push(after);
    return told(after);
  });

export async function fork(name, branch, step) {
  const { branches } = use(name);
  if (branches.length >= MOST_BRANCHES)
    throw new Error(`there are ${MOST_BRANCHES} branches already, the most there may be; take a new patient`);
  const moments = branches[branch].moments.slice(0, step + 1);
  if (moments.at(-1).shown.end !== null)
    throw new Error(`the course is over at step ${step}; branch from an earlier step`);
  const made = { id: branches.length, parent: { branch, step }, moments };
  branches.push(made);
  return toldBranch(made);
}

export const close = async (name) => sessions.delete(name);

export const ecg = (name, branch, step) =>
  alone(async () => {
    const { patient, branches } = use(name);
    const { state, shown } = branches[branch].moments[step];
    const title = `Simulated patient ${patient.seed}, ${world.about.name}, hour ${shown.time}`;
    return paper(world.sheet, await world.draw(state), title, `ecg-${branch}`);
  });
