"""How fast learned wards answer: `python -m benchmarks.ward.speed --json benchmarks/results/speed_ehr_world.json`.

One run, kinds interleaved, medians of `--repeats` after a warm-up. Outcomes a second: 20 inquiries a step behind 40
steps of 20 inquiries each, at batch 1 and 64, for set_outcome and for causal language models over text (the paper's
form) and quantile tokens, cache of keys and values on, of about as many weights as set_outcome. The language models
have random weights, which cost what trained ones do; their grammar is narrowed to values of the length that stays
have, so that an answer has the tokens that a trained model would write. A case: a stay of 160 events (the paper's has
159), its own outcomes, from the admission on; seconds of wall clock over the batch. Environment: EHRWard-v0, random
menus.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import clinenv  # noqa: F401  (registers the ids)
from benchmarks.common.results import RESULTS, made_by, write_json
from benchmarks.ward.narratives import stay
from world_models import catalog, keys, tree
from world_models.ehr_world import ward_rollouts
from world_models.ehr_world.causal_lm.codec import TextCodec, train_tokenizer
from world_models.ehr_world.causal_lm.grammar import finish, text_automaton
from world_models.ehr_world.causal_lm.model import CausalLM, qwen3
from world_models.ehr_world.causal_lm.text import (
    AskedItem,
    Given,
    Narrative,
    NarrativeStep,
    number,
    outcome_text,
    render,
)
from world_models.ehr_world.causal_lm.tokens import QuantileCodec
from world_models.ehr_world.set_outcome.inference import believe
from world_models.ehr_world.set_outcome.stay_tensors import CENSORED, Stays
from world_models.ehr_world.set_outcome.world import EHRWorldModel
from world_models.quantities.ward import INQUIRIES, INTERVENTIONS

K, PAST, CASE = 20, 40, 8  # inquiries a step; steps told; steps of a case
_ITEMS = [q for q in INQUIRIES if q.kind != "culture"][:K]
_I = len(INQUIRIES)
SEED = 8_200_000_000
Work = Callable[[], None]


def menus(steps: int) -> tuple[Tensor, Tensor]:
    """asked bool [steps, I], given [steps, J]: the K inquiries, and one intervention at its standard dose."""
    asked = torch.zeros(steps, _I, dtype=torch.bool)
    asked[:, [INQUIRIES.index(q) for q in _ITEMS]] = True
    given = torch.zeros(steps, len(INTERVENTIONS))
    given[:, 0] = float(INTERVENTIONS[0].standard)
    return asked, given


def step_of(index: int, values: dict[str, float] | None) -> NarrativeStep:
    """The same orders as text; with outcomes where `values` are given."""
    asked = tuple(
        AskedItem(q.name, *(() if values is None else (values[q.name], None, q.unit)))
        for q in sorted(_ITEMS, key=lambda q: q.name)
    )
    first = INTERVENTIONS[0]
    return NarrativeStep(index, asked, (Given(first.name, "administration", float(first.standard), first.unit),))


class FixedText(TextCodec):
    """Each item's outcome is one text, so that what is written has its usual length."""

    def __init__(self, tokenizer: Any, values: dict[str, float]) -> None:
        super().__init__(tokenizer)
        units = {q.name: q.unit for q in _ITEMS}
        texts = {n: [outcome_text(AskedItem(n, v, None, units[n]))] for n, v in values.items()}
        self.automaton = text_automaton(self.pieces, texts)

    def kind(self, item: str) -> str:
        """Every item is a kind of its own."""
        return item


def language_models(stays: Stays, values: dict[str, float]) -> dict[str, CausalLM]:
    """Language models with random weights, over text and over quantile tokens, by their names."""
    some = [stay(stays, row, status=True) for row in range(len(stays.static))]
    told = Narrative((), (), 4.0, tuple(step_of(i, values) for i in range(3)))
    quantile = QuantileCodec.fit([*some, told], 10)
    rows: list[dict[int, int]] = [{}, *({quantile.ids[t]: 0 for t in quantile.outcomes[n]} for n in values)]
    quantile.automaton = finish(rows, quantile.size, {n: i + 1 for i, n in enumerate(values)})
    codecs = {"text": FixedText(train_tokenizer((render(s) for s in some), 1024), values), "quantile tokens": quantile}
    return {n: CausalLM.from_config(qwen3(c.size, 128, 4, 4, 1 << 15), c) for n, c in codecs.items()}


def set_outcome_work(model: EHRWorldModel, batch: int) -> tuple[Work, Work]:
    """Answer a step's orders behind PAST steps; live through a case."""
    asked, given = menus(PAST + 1)
    asked[0] = False
    shape = (batch, PAST + 1, _I)
    value = torch.where(asked, model.typical.round(decimals=1), float("nan")).expand(shape).contiguous()
    there = torch.ones(batch, PAST + 1, dtype=torch.bool)
    static = model.admissions[:1].expand(batch, -1)
    delay = torch.zeros(shape, dtype=torch.int8)
    stays = Stays(
        static,
        torch.zeros(batch, len(model.vocabulary.diagnoses)),
        asked.expand(shape),
        value,
        delay,
        given.expand(batch, -1, -1),
        there,
        ~there,
        there,
    )
    assert not bool((stays.delay == CENSORED).any())
    key = keys.from_seed(SEED, batch)
    state = believe(model, stays, key, torch.zeros(batch))
    action = torch.cat([asked[1].float(), given[1]]).expand(batch, -1)

    def case() -> None:
        now = model.initial(key)
        for _ in range(CASE):
            now = model.transition(now, action)._replace(alive=there[:, 0], home=~there[:, 0])

    return lambda: model.transition(state, action), case


def language_work(lm: CausalLM, batch: int, values: dict[str, float]) -> tuple[Work, Work]:
    """Answer a step's orders behind PAST steps; live through a case."""
    key = keys.from_seed(SEED, batch)
    bare = Narrative((("age_years", 60.0), ("sex", "female")), (), 4.0)
    state = lm.start([bare], key[:1])
    for index in range(PAST):  # a step at a time: a prompt of thousands at once needs the square of its length
        state = lm.remember(state, [step_of(index, values)], 4.0)
        if index % 4 == 3:
            state, _ = lm.feed(state)
    state = tree.repeat(state, batch)._replace(key=key)
    orders = [step_of(PAST, None)] * batch

    def case() -> None:
        now = lm.start([bare] * batch, key)
        for index in range(CASE):
            now, _ = lm.step(now, [step_of(index, None)] * batch, 4.0)

    return lambda: lm.step(state, orders, 4.0), case


def environment_work(world: Any, batch: int, uncertainty: bool = True) -> Work:
    """One step of a vector environment on random menus."""
    env = gymnasium.make_vec(
        "EHRWard-v0",
        num_envs=batch,
        vectorization_mode="vector_entry_point",
        world=world,
        uncertainty=uncertainty,
        autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP,
    )
    env.reset(seed=SEED % 2**31)
    menu = (np.random.default_rng(0).random((8, batch, *env.single_action_space.shape)) < 0.2).astype(np.int8)
    turn = iter(range(1 << 60))
    return lambda: env.step(menu[next(turn) % len(menu)])


def measure(
    works: dict[Any, Work], seconds: float, repeats: int, slow_s: float, what: str
) -> dict[Any, dict[str, float]]:
    """Calls a second of each work: median, least and greatest of interleaved repeats, after a call each to warm up.
    What takes more than `slow_s` a call is not repeated after its second time. `cpu`: the median per second of
    processor time, for a machine that others use too."""
    found: dict[Any, list[float]] = {name: [] for name in works}
    used: dict[Any, list[float]] = {name: [] for name in works}
    for name, work in tqdm(works.items(), desc=f"{what}, warm-up", mininterval=1):
        start, cpu = time.perf_counter(), time.process_time()
        work()
        if time.perf_counter() - start > slow_s:
            found[name].append(1 / (time.perf_counter() - start))
            used[name].append(1 / max(time.process_time() - cpu, 1e-9))
    for _ in tqdm(range(repeats), desc=what, mininterval=1):
        for name, work in works.items():
            if len(found[name]) > 1 and found[name][-1] < 1 / slow_s:
                continue
            done, start, cpu = 0, time.perf_counter(), time.process_time()
            while time.perf_counter() - start < seconds or not done:
                work()
                done += 1
            found[name].append(done / (time.perf_counter() - start))
            used[name].append(done / max(time.process_time() - cpu, 1e-9))
    middle = statistics.median
    return {
        n: {"median": middle(x), "low": min(x), "high": max(x), "cpu": middle(used[n]), "repeats": len(x)}
        for n, x in found.items()
    }


def outcomes(
    model: EHRWorldModel, lms: dict[str, CausalLM], batches: list[int], values: dict[str, float], a: argparse.Namespace
) -> list[dict]:
    """Rows of outcomes a second and seconds a case."""
    rows: list[dict] = []
    for batch in batches:  # a batch at a time: the caches of large ones are gigabytes
        both = {"set_outcome": set_outcome_work(model, batch)}
        both |= {f"causal_lm, {n}": language_work(m, batch, values) for n, m in lms.items()}
        step = measure({n: w[0] for n, w in both.items()}, a.seconds, a.repeats, a.slow, f"outcomes, batch {batch}")
        case = measure({n: w[1] for n, w in both.items()}, a.seconds, a.repeats, a.slow, f"case, batch {batch}")
        here = []
        for name, found in step.items():
            lm = lms.get(name.removeprefix("causal_lm, "))
            weights = sum(p.numel() for p in (model if lm is None else lm.model).parameters())
            row = {"model": name, "parameters": weights, "batch": batch, "inquiries": K, "past_steps": PAST}
            row |= {
                f"outcomes_a_second{'' if n == 'median' else '_' + n}": x * K * batch
                for n, x in found.items()
                if n != "repeats"
            }
            row |= {"repeats": found["repeats"], "seconds_a_case": 1 / case[name]["median"] / batch}
            if lm is not None:
                told = step_of(0, values)
                tokens = sum(len(lm.codec.ask(x.item)) + len(lm.codec.outcome(x)) for x in told.asked)
                row["tokens_a_second"] = row["outcomes_a_second"] * tokens / K
                row["tokens_an_outcome"] = tokens / K
            here.append(row)
        for row in here:
            for name in ("", "_cpu"):
                of = f"outcomes_a_second{name}"
                row[f"set_outcome_times_faster{name}"] = here[0][of] / row[of]
        rows += here
        del both
    return rows


def environments(worlds: dict[str, Any], batches: list[int], a: argparse.Namespace) -> list[dict]:
    """Rows of environment steps a second."""
    works = {(n, b): environment_work(w, b) for n, w in worlds.items() for b in batches}
    works |= {(f"{n}, uncertainty=False", b): environment_work(w, b, False) for n, w in worlds.items() for b in batches}
    found = measure(works, a.seconds, a.repeats, a.slow, "environment")
    rows = []
    for (world, batch), x in found.items():
        rates = {f"steps_a_second{'' if n == 'median' else '_' + n}": v * batch for n, v in x.items() if n != "repeats"}
        rows.append({"environment": "EHRWard-v0", "world": world, "batch": batch, **rates})
    return rows


def main(argv: list[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--world", default="ehr-ward-small", help="a catalogued learned ward or its folder")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 64])
    parser.add_argument("--env-batches", nargs="+", type=int, default=[1, 64, 1024])
    parser.add_argument("--seconds", type=float, default=2.0, help="of one repeat, at least")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--slow", type=float, default=30.0, help="seconds a call from which two calls are enough")
    parser.add_argument("--parts", nargs="+", default=["outcomes", "environment"], choices=["outcomes", "environment"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, default=RESULTS / "speed_ehr_world.json")
    a = parser.parse_args(argv)
    torch.set_num_threads(a.threads)
    model = catalog.load(a.world)
    told: dict[str, Any] = {
        "processor": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "threads": a.threads,
    }
    told |= {"load_average_before": os.getloadavg()[0], "case_events": K * CASE, "paper_seconds_a_case": 1.29}
    told["paper_hardware"] = "H100s, 64 requests at a time: other hardware, other model"
    if "outcomes" in a.parts:
        values = {q.name: float(number(round(float(q.typical), 1))) for q in _ITEMS}
        lms = language_models(ward_rollouts.rollout(keys.from_seed(SEED, 60), steps=12), values)
        told["outcomes"] = outcomes(model, lms, a.batches, values, a)
    if "environment" in a.parts:
        told["environment"] = environments({model.name: model, "oracle": "oracle"}, a.env_batches, a)
    told["load_average_after"] = os.getloadavg()[0]
    for row in (*told.get("outcomes", ()), *told.get("environment", ())):
        print({n: round(v, 4) if isinstance(v, float) else v for n, v in row.items()})
    made = made_by("benchmarks.ward.speed", argv, {"patients": SEED}, [a.world, "ward-oracle"])
    write_json(a.json, told, made)


if __name__ == "__main__":
    main()
