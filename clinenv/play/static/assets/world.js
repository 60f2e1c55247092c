// The learned world as networks in the browser: a step, and an ECG part by part.

import * as ort from "./onnxruntime-web.js";

const here = (file) => new URL(`./world/${file}`, import.meta.url).href;
const READ = { float32: Float32Array, int64: BigInt64Array, bool: Uint8Array };
const DIGITS = 6; // significant, as the server gives them

ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = { wasm: new URL("./ort-wasm-simd-threaded.wasm", import.meta.url).href };
ort.env.logLevel = "error";

async function fetched(file) {
  const answer = await fetch(here(file)).catch(() => null);
  if (!answer?.ok)
    throw new Error(`${file} cannot be had; serve the whole folder, such as by python -m http.server, and reload`);
  return answer;
}

const rounded = (x) => (Number.isFinite(x) ? Number(x.toPrecision(DIGITS)) : null);
const named = (names, data) => Object.fromEntries(names.map((name, i) => [name, rounded(data[i])]));

export async function load() {
  const [told, states] = await Promise.all([
    fetched("world.json").then((answer) => answer.json()),
    fetched("patients.bin").then((answer) => answer.arrayBuffer()),
  ]);
  const opened = new Map();

  // Of a network by name what it gives, by name; it takes of `tensors` those that it knows.
  async function run(name, tensors) {
    if (!opened.has(name)) {
      const bytes = new Uint8Array(await (await fetched(`${name}.onnx`)).arrayBuffer());
      // not optimised: for networks so small that takes longer than it saves in a whole episode
      const how = { executionProviders: ["wasm"], graphOptimizationLevel: "disabled" };
      opened.set(name, await ort.InferenceSession.create(bytes, how));
    }
    const network = opened.get(name);
    const found = await network.run(Object.fromEntries(network.inputNames.map((input) => [input, tensors[input]])));
    return Object.fromEntries(Object.entries(found).map(([output, tensor]) => [output.slice("next.".length), tensor]));
  }

  // The state of a patient at admission.
  function admitted({ offset }) {
    const state = {};
    for (const { name, type, shape } of told.state) {
      const size = shape.reduce((all, n) => all * n, 1) * READ[type].BYTES_PER_ELEMENT;
      state[name] = new ort.Tensor(type, new READ[type](states.slice(offset, offset + size)), shape);
      offset += size;
    }
    return state;
  }

  async function step(state, action) {
    const dose = new ort.Tensor("float32", Float32Array.from(told.menu_mg[action]), [1, told.menu_mg[action].length]);
    const out = await run("step", { ...state, dose_mg: dose });
    const after = { ...state };
    for (const [name, tensor] of Object.entries(out)) if (!name.startsWith("shown.")) after[name] = tensor;
    const at = (name) => out[`shown.${name}`].data;
    const keys = told.setting.rows.map((row) => row.key);
    const spread = named(keys, at("spread"));
    for (const key of keys) if (spread[key] === null) delete spread[key];
    const shown = {
      time: rounded(at("hours")[0]),
      values: named(keys, at("values")),
      spread,
      support: Boolean(at("support")[0]),
      end: at("terminated")[0] ? "terminated" : null,
      allowed: null,
      reward: rounded(at("reward")[0]),
      terms: named(told.terms, at("terms")),
      cost: rounded(at("cost")[0]),
      costs: named(told.costs, at("costs")),
      given: told.given[action],
      refused: [],
      truth: [],
    };
    return { state: after, shown };
  }

  // Twelve leads of ten seconds in mV, one after the other; see clinenv/play/static/networks.py.
  async function draw(state) {
    const stacked = (names) =>
      new ort.Tensor("float32", Float32Array.from(names, (name) => state[`present.intervals.${name}`].data[0]), [
        1,
        names.length,
      ]);
    const { intervals, t_wave, rounds, enough } = told.drawing;
    let held = {
      ...state,
      intervals: stacked(intervals),
      t_wave: stacked(t_wave),
      fibrillating: state["present.fibrillating"],
    };
    const ask = async (name) => (held = { ...held, ...(await run(name, held)) });
    await ask("beat");
    await ask("bend");
    if (held.left.data[0] > enough) {
      await ask("begin");
      for (let i = 0; i < rounds; i++) await ask("round");
    }
    held = { ...held, x: held["at.x"], gain: held["at.gain"] };
    return (await run("draw", held)).ecg_mv.data;
  }

  const { setting, about, patients, sheet } = told;
  return { setting, about, patients, sheet, admitted, step, draw };
}
