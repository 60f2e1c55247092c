"""Training stays from the oracle ward: charts and orders only, never what the oracle hides.

Who gives the orders decides what can be learned. Two patients of three meet the clinician of `clinician`, as
colleagues of varied taste, with edits: some single orders, and over whole stretches a few interventions, are withheld
or given at a random multiple of their standard dose, so that every order's effect is seen at several doses among
patients who had no need of it; and some of what a patient needs is refused for days, so that it is also seen what comes
of going without (an endoscopy or an antibiotic, which everybody in need would have had). Half of them are tested less
than the clinician would, some inquiries never, others now and then, so that a missing value does not stand for a
patient whom nobody treats. The third patient meets random menus.
With `confounding` above 0 the clinician also acts on the hidden severity, for the experiments on hidden confounding.

Splits are by the patient's seed: training from TRAIN_SEED on, validation from VALID_SEED, test from TEST_SEED (the
benchmarks'); a patient of one is never a patient of another.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from world_models import keys, tree
from world_models.checkpoint import save_tensors
from world_models.ehr_world.set_outcome.stay_tensors import Stays, from_charts, trim
from world_models.ehr_world.vocabulary import collection_share
from world_models.oracles.ward.clinician import clinician
from world_models.oracles.ward.world import WardOracle
from world_models.protocol import Chart
from world_models.quantities.ward import INQUIRIES, INTERVENTIONS, STATIC

__all__ = ["EDITED_SEED", "MANY", "SOME", "TEST_SEED", "TRAIN_SEED", "VALID_SEED", "Edits", "behaviour", "offsets_h"]
__all__ += ["read_shards", "rollout", "write_shards"]

TRAIN_SEED, VALID_SEED, TEST_SEED = 3_000_000_000, 4_000_000_000, 7_000_000_000
EDITED_SEED = 3_200_000_000  # of training patients whose orders are edited more
_I, _J = len(INQUIRIES), len(INTERVENTIONS)
_DOSES = torch.tensor([0.25, 0.5, 1.0, 1.0, 1.5, 2.0])  # multiples of the standard dose
HOURS_PER_STEP = 4.0  # of the ward

# The mixed behaviour: chances and shares of our choosing, wide enough that every order is seen with and without need.
LEAST_VARIATION, VARIED = 0.35, 0.55  # of a colleague's variation; above this the clinician's own variation applies
LATEST_STRETCH, LONGEST_STRETCH = 40, 8  # steps
LATEST_REFUSAL, LONGEST_REFUSAL = 16, 24  # steps


class Edits(NamedTuple):
    """How often the clinician's interventions are changed, whoever needs them."""

    withheld: float  # chance of each in each step: left out
    changed: float  # left out or given at a random dose
    stretches: int  # of a patient: one intervention each, for some steps
    stretch_withheld: float  # of the stretches; in the others it is given
    refused: float  # of a patient's interventions: over one stretch not given, whoever orders them


SOME, MANY = Edits(0.006, 0.018, 3, 0.35, 0.15), Edits(0.012, 0.036, 5, 0.2, 0.4)
THINNED = 0.5  # of patients
NEVER_VITAL, NEVER_OTHER, SKIPPED = 0.08, 0.3, 0.25  # of their inquiries: never asked, and left out of a step
ASKED = 0.03  # of all inquiries that nobody ordered, in each step
MENU_PATIENTS = 1.0 / 3.0
OFTEN, TESTS = (0.02, 0.10), (0.08, 0.4)  # least, and width of the range, of a patient's appetite
KEPT = 0.75  # of settings, in each step
MENU_ASKED = {"vital": 0.9, "culture": 0.05}  # in each step, by kind; others by the patient's appetite
FOLLOWED = 0.9  # of steps in which a menu's oxygen and ventilator are the clinician's


# orders(chart, key, t, severity, confounding) -> [B, A]
Behaviour = Callable[[Chart, Tensor, Tensor, Tensor | None, float], Tensor]


def offsets_h(hours_per_step: float) -> Tensor:
    """Usual hours [I] from a step's start to the collection of each inquiry's specimen."""
    return torch.tensor([collection_share(q.kind) for q in INQUIRIES]) * hours_per_step


def behaviour(
    chart: Chart,
    key: Tensor,
    t: Tensor,
    severity: Tensor | None = None,
    confounding: float = 0.0,
    edits: Edits = SOME,
) -> Tensor:
    """Orders [B, A] of the mixed behaviour of this module, a function of the chart, the key and the step."""
    varied = LEAST_VARIATION + (1.0 - LEAST_VARIATION) * keys.uniform(key, 0, "behaviour/variation")
    base = clinician(chart, HOURS_PER_STEP, confounding, severity, key, t, 1.0)
    plain = clinician(chart, HOURS_PER_STEP, confounding, severity, key, t, 0.0)
    orders = torch.where((varied > VARIED).unsqueeze(-1), base, plain)
    dose = _random_doses(key, t)
    given = _edited(orders[:, _I:], dose, key, t, edits)
    asked = _thinned(orders[:, :_I], key, t)

    menu = (keys.uniform(key, 0, "behaviour/menu") < MENU_PATIENTS).unsqueeze(-1)
    menu_asked, menu_given = _menu(chart, dose, key, t)
    # oxygen and ventilator still follow the bedside: else those who meet menus would be short of breath and little else
    for name in ("oxygen_fraction", "ventilation_l_min"):
        column = [q.name for q in INTERVENTIONS].index(name)
        follows = keys.uniform(key, t, f"behaviour/{name}") < FOLLOWED
        menu_given[:, column] = torch.where(follows, given[:, column], menu_given[:, column])
    given = torch.where(menu, menu_given, given)
    asked = torch.where(menu, menu_asked, asked)
    return torch.cat([asked, given], -1)


def _limits() -> tuple[Tensor, Tensor]:
    """Largest and standard amounts [J]."""
    high = torch.tensor([float(q.high) for q in INTERVENTIONS])
    return high, torch.tensor([float(q.standard) for q in INTERVENTIONS])


def _random_doses(key: Tensor, t: Tensor) -> Tensor:
    """[B, J] a random multiple of each standard dose."""
    high, standard = _limits()
    pick = (keys.uniform(key, t, "behaviour/dose", (_J,)) * len(_DOSES)).long()
    return torch.minimum(_DOSES[pick] * standard, high)


def _edited(given: Tensor, dose: Tensor, key: Tensor, t: Tensor, edits: Edits) -> Tensor:
    """Interventions [B, J] with single ones withheld or given at `dose`, and so for whole stretches of steps."""
    high, standard = _limits()
    coin = keys.uniform(key, t, "behaviour/edit", (_J,))
    given = torch.where(coin < edits.withheld, 0.0, torch.where(coin < edits.changed, dose, given))
    given = torch.where(_refused(key, t, edits.refused), 0.0, given)
    # stretches: one intervention each, withheld or forced over one to eight steps
    which = (keys.uniform(key, 0, "behaviour/which", (edits.stretches,)) * _J).long()
    begin = (keys.uniform(key, 0, "behaviour/begin", (edits.stretches,)).square() * LATEST_STRETCH).long()
    length = 1 + (keys.uniform(key, 0, "behaviour/length", (edits.stretches,)) * LONGEST_STRETCH).long()
    level = _DOSES[(keys.uniform(key, 0, "behaviour/level", (edits.stretches,)) * len(_DOSES)).long()]
    withheld = keys.uniform(key, 0, "behaviour/withheld", (edits.stretches,)) < edits.stretch_withheld
    running = (t.unsqueeze(-1) >= begin) & (t.unsqueeze(-1) < begin + length)
    forced = torch.where(withheld, 0.0, torch.minimum(level * standard[which], high[which]))
    place = torch.arange(_J).view(1, 1, -1) == which.unsqueeze(-1)
    hit = place & running.unsqueeze(-1)
    return torch.where(hit.any(1), (hit * forced.unsqueeze(-1)).amax(1), given)


def _refused(key: Tensor, t: Tensor, share: float) -> Tensor:
    """bool [B, J]: what a patient does not get in this step; half of the refusals begin with the stay."""
    refused = keys.uniform(key, 0, "behaviour/refused", (_J,)) < share
    place = (2.0 * keys.uniform(key, 0, "behaviour/refusal", (_J,)) - 1.0).clamp(min=0.0)
    begin = (place * LATEST_REFUSAL).long()
    length = 1 + (keys.uniform(key, 0, "behaviour/refusal length", (_J,)) * LONGEST_REFUSAL).long()
    now = t.unsqueeze(-1)
    return refused & (now >= begin) & (now < begin + length)


def _thinned(asked: Tensor, key: Tensor, t: Tensor) -> Tensor:
    """Inquiries [B, I]: of half of the patients fewer, of all now and then one more."""
    vital = torch.tensor([q.kind == "vital" for q in INQUIRIES])
    thinned = (keys.uniform(key, 0, "behaviour/thin") < THINNED).unsqueeze(-1)
    never = keys.uniform(key, 0, "behaviour/never", (_I,)) < torch.where(vital, NEVER_VITAL, NEVER_OTHER)
    skipped = keys.uniform(key, t, "behaviour/skip", (_I,)) < SKIPPED
    asked = torch.where(thinned & (never | skipped), 0.0, asked)
    return torch.where(keys.uniform(key, t, "behaviour/ask", (_I,)) < ASKED, 1.0, asked)


def _menu(chart: Chart, dose: Tensor, key: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Random inquiries [B, I] and interventions [B, J]: each patient has an appetite of its own; a setting is kept or
    changed, an amount is given now and then."""
    high, _ = _limits()
    often = OFTEN[0] + OFTEN[1] * keys.uniform(key, 0, "behaviour/often")
    setting = torch.tensor([q.per_hour is None for q in INTERVENTIONS])
    last = chart["treatment_share"] * high
    stay = (keys.uniform(key, t, "behaviour/keep", (_J,)) < KEPT) & setting & (last > 0)
    start = keys.uniform(key, t, "behaviour/start", (_J,)) < often.unsqueeze(-1)
    given = torch.where(stay, last, torch.where(start, dose, 0.0))
    tests = TESTS[0] + TESTS[1] * keys.uniform(key, 0, "behaviour/tests").unsqueeze(-1)
    share = torch.tensor([MENU_ASKED.get(q.kind, 0.0) for q in INQUIRIES])
    chance = torch.where(share > 0, share, tests)
    return (keys.uniform(key, t, "behaviour/inquire", (_I,)) < chance).float(), given


@torch.no_grad()
def rollout(
    key: Tensor,
    steps: int = 84,
    confounding: float = 0.0,
    orders: Behaviour = behaviour,
    world: WardOracle | None = None,
) -> Stays:
    """Stays [B] of the oracle from keys [B] under `orders(chart, key, t, severity, confounding)`."""
    world = world or WardOracle()
    hours, batch = world.hours_per_step, key.shape[0]
    state = world.initial(key)
    shape = (batch, steps + 1)
    charts = {n: torch.zeros(*shape, _I) for n in ("value", "drawn_h", "seen", "pending")}
    asked, given = torch.zeros(*shape, _I, dtype=torch.bool), torch.zeros(*shape, _J)
    alive, home = torch.ones(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
    valid = torch.zeros(shape, dtype=torch.bool)
    valid[:, 0] = True
    rows = torch.arange(batch)
    chart = world.observe(state, ("diagnosis",))
    static = torch.cat([torch.stack([chart[q.name] for q in STATIC], -1), chart["complaint"]], -1)
    diagnosis = chart["diagnosis"].clone()

    def note(place: int) -> None:
        charts["value"][rows, place] = torch.stack([chart[q.name] for q in INQUIRIES], -1)
        charts["drawn_h"][rows, place] = chart["hours"].unsqueeze(-1) - chart["inquiry_age_hours"]
        charts["seen"][rows, place] = chart["inquiry_seen"]
        charts["pending"][rows, place] = chart["inquiry_pending"]

    note(0)
    last = torch.zeros(batch, dtype=torch.int64)
    for step in range(1, steps + 1):
        here = (chart["alive"] > 0.5) & (chart["discharged"] < 0.5)
        if not bool(here.any()):
            break
        if not bool(here.all()):  # the gone stand still: no need to carry them on
            state, chart, rows = tree.take(state, here), tree.take(chart, here), rows[here]
        severity = world.truth(state)["severity"] if confounding > 0 else None
        action = orders(chart, state.key, state.t, severity, confounding)
        state = world.transition(state, action)
        chart = world.observe(state)
        asked[rows, step] = action[:, :_I] >= 0.5
        given[rows, step] = chart["treatment_share"] * world._largest
        alive[rows, step], home[rows, step] = chart["alive"] > 0.5, chart["discharged"] > 0.5
        valid[rows, step] = True
        last[rows] = step
        note(step)
    # after the end the chart stands still, so that pending stays pending
    index = torch.minimum(torch.arange(steps + 1).expand(shape), last.unsqueeze(-1)).unsqueeze(-1)
    still = {n: torch.gather(x, 1, index.expand_as(x)) for n, x in charts.items()}
    taken, value, delay = from_charts(
        still["value"],
        still["drawn_h"],
        still["seen"] > 0.5,
        still["pending"] > 0.5,
        torch.arange(steps + 1).expand(shape) * hours,
        asked,
        offsets_h(hours),
        hours,
    )
    return Stays(static, diagnosis, taken & valid.unsqueeze(-1), value, delay, given, alive, home, valid)


def write_shards(
    folder: Path,
    name: str,
    seed: int,
    count: int,
    confounding: float = 0.0,
    size: int = 1000,
    edits: Edits = SOME,
) -> None:
    """`count` stays as safetensors `folder/name-NNN.safetensors`; shards that are there already are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / f"{name}.json"
    made_of = {"seed": seed, "count": count, "confounding": confounding, "size": size, "edits": list(edits)}
    if note.exists() and json.loads(note.read_text()) != made_of:
        raise ValueError(f"{note} tells of other stays ({note.read_text()}); delete that folder or name another")
    note.write_text(json.dumps(made_of))
    for i in tqdm(range(-(-count // size)), desc=f"stays {name}", mininterval=1):
        path = folder / f"{name}-{i:03d}.safetensors"
        if path.exists():
            continue
        key = keys.from_seed(seed + i * size, min(size, count - i * size))
        stays = rollout(key, confounding=confounding, orders=partial(behaviour, edits=edits))
        save_tensors(path, trim(stays)._asdict())


def read_shards(folder: Path, name: str) -> list[Stays]:
    """The shards of `write_shards`, in order. Raises FileNotFoundError when there are none."""
    paths = sorted(folder.glob(f"{name}-*.safetensors"))
    if not paths:
        raise FileNotFoundError(f"{folder} holds no {name}-*.safetensors; make them with --source ward")
    return [Stays(**load_file(path)) for path in paths]
