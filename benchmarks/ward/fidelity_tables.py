"""Tables of a learned ward on the oracle's stays: next step, full trajectory, and the oracle as their ceiling.

The ceiling is the same hidden patient with other random keys: other noise of measurement, bleeding and physiology.

What each row means is told in `benchmarks.ward.fidelity`, which prints them.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.ward.scores import LEVELS, energy, laplace_scores, pinball_crps, point_scores
from world_models import keys, tree
from world_models.ehr_world import ward_rollouts
from world_models.ehr_world.records import cut, first_value
from world_models.ehr_world.set_outcome.copula import latent, log_copula
from world_models.ehr_world.set_outcome.inference import believe
from world_models.ehr_world.set_outcome.losses import Forced, forced, likelihood, normal_score
from world_models.ehr_world.set_outcome.stay_tensors import Stays, charted
from world_models.ehr_world.set_outcome.world import EHRWorldModel
from world_models.ehr_world.vocabulary import from_z, report_grid, to_z
from world_models.files import replacing
from world_models.oracles.ward.world import WardOracle
from world_models.quantities.ward import INQUIRIES

__all__ = [
    "DAYS",
    "PATHS",
    "Table",
    "by_length",
    "ceiling_of",
    "clip",
    "first_value",
    "full_trajectory",
    "next_step",
    "simulate",
]

PATHS, DAYS, CHUNK = 19, 7, 100  # of 19 paths the second and the last but one bound 80 % of a right model's mass
_I = len(INQUIRIES)
PATHS_SEED = 900_000_000  # of own courses under recorded orders
PLACES = 100  # more than a stay has positions: packs stay and position into one number
JOINT_SAMPLES = 16  # of a step's set of slots, for the energy score
LOW_80, MEDIAN, HIGH_80 = 1, 9, 17  # of LEVELS: 10, 50 and 90 %


def clip(stays: Stays, steps: int) -> Stays:
    """The admission and the first `steps` steps of each stay."""
    return Stays(*stays[:2], *(x[:, : steps + 1] for x in stays[2:]))


class Table:
    """What the baselines know: medians and mean errors by item, from the validation stays."""

    def __init__(self, model: EHRWorldModel, held_out: Stays) -> None:
        self.model = model
        net = model.net
        z = to_z(held_out.value, net.scale)
        there = ~held_out.value.isnan() & held_out.asked
        chart = charted(held_out)
        seen = torch.cat([torch.zeros_like(chart.seen[:, :1]), chart.seen[:, :-1]], 1)
        last = torch.cat([torch.zeros_like(z[:, :1]), to_z(chart.value, net.scale)[:, :-1]], 1)
        self.median = torch.stack([z[..., i][there[..., i]].median() for i in range(_I)])
        first = first_value(held_out)[0]
        first_z = to_z(first, net.scale).unsqueeze(1).expand_as(z)
        self.grid = torch.tensor([report_grid(held_out.value[..., i][there[..., i]].double()) for i in range(_I)])
        self.scale = {}
        for name, guess in (("last_value", last), ("first_value", first_z), ("item_median", self.median.expand_as(z))):
            error = torch.where(there & seen, (z - guess).abs(), 0.0).nan_to_num(0.0)
            self.scale[name] = (error.sum((0, 1)) / (there & seen).sum((0, 1)).clamp_min(1)).clamp_min(0.02)
        numbers = [
            i.normal if i.normal and not i.labels else (float("nan"), float("nan")) for i in model.vocabulary.items
        ]
        self.normal = torch.tensor(numbers)

    def jittered(self, y: Tensor, item: Tensor, purpose: str) -> Tensor:
        """z [N] of reports y spread evenly over what rounds to them: an interval's coverage of rounded numbers means
        nothing where one report holds half the mass."""
        even = keys.uniform(keys.from_seed(88, 1), 0, purpose, (len(y),))[0] - 0.5
        return to_z(y + even * self.grid[item], self.model.net.scale[item])

    def rows(self, y: Tensor, item: Tensor, last: Tensor, guesses: dict[str, Tensor], group: Tensor) -> list[dict]:
        """Rows of the baselines: `guesses` name -> value [N], NaN where it knows none (then the item's median)."""
        scale, out = self.model.net.scale[item], []
        fallback = from_z(self.median[item], scale)
        low, high = self.normal[item].unbind(-1)
        for name, guess in guesses.items():
            guess = torch.where(guess.isnan(), fallback, guess)
            z, zhat = to_z(y, scale), to_z(guess, scale)
            row = {"model": name, **point_scores(y, guess, last, item, low, high)}
            if name in self.scale:
                row |= laplace_scores(z - zhat, self.scale[name][item])
            groups, index = torch.unique(group, return_inverse=True)
            row["energy"] = float(energy(zhat.unsqueeze(0), z, index, len(groups)).mean())
            out.append(row)
        return out


def by_length(stays: Stays, chunk: int):
    """Chunks of about equally long stays, cut to their length."""
    length = stays.valid.sum(1)
    for rows in length.argsort(descending=True).split(chunk):
        part = tree.take(stays, rows)
        yield rows, Stays(*part[:2], *(x[:, : int(length[rows].amax())] for x in part[2:]))


class _Part(NamedTuple):
    """What a chunk of stays gives to the next-step table."""

    slots: dict[str, Tensor]  # columns [N] of its numeric slots
    energy: Tensor  # [G] of each step's set, slots drawn jointly
    energy_alone: Tensor  # [G] each slot drawn for itself
    joint_nats: float  # log density of the copula, summed
    right: Tensor  # [L] 1 where a label's likeliest class came


@torch.no_grad()
def next_step(model: EHRWorldModel, test: Stays, table: Table, ceiling: dict[str, Tensor] | None) -> list[dict]:
    """Rows of the next-step table."""
    parts = [_next_of(model, table, rows, part) for rows, part in by_length(test, CHUNK)]
    x = _joined([p.slots for p in parts])
    low, high = table.normal[x["item"]].unbind(-1)
    row = {"model": model.name, **point_scores(x["y"], x["point"], x["last"], x["item"], low, high)}
    row |= {"nll": float(x["nll"].mean()), "coverage80": float(x["inside"].mean())}
    row |= {"coverage80_of_rounded": float(x["reported"].mean()), "crps": float(x["crps"].mean())}
    row["energy"] = float(torch.cat([p.energy for p in parts]).mean())
    row["energy_independent_slots"] = float(torch.cat([p.energy_alone for p in parts]).mean())
    row["copula_nats_a_value"] = sum(p.joint_nats for p in parts) / len(x["y"])
    right = torch.cat([p.right for p in parts])
    row |= {"label_accuracy": float(right.mean()), "labels": len(right)}
    guesses = {"last_value": x["last"], "first_value": x["first"], "item_median": _unknown(x["y"])}
    out = [row, *table.rows(x["y"], x["item"], x["last"], guesses, x["group"])]
    if ceiling is not None:
        out += _against(ceiling, x, table, model.name)
    seen = ~x["last"].isnan()
    before = {n: v[seen] for n, v in x.items()}
    names = {f"{model.name} (items charted before)": before["point"]}
    names["last_value (items charted before)"] = before["last"]
    out += table.rows(before["y"], before["item"], before["last"], names, before["group"])
    return [{"setting": "next_step", **r} for r in out]


def _next_of(model: EHRWorldModel, table: Table, rows: Tensor, part: Stays) -> _Part:
    """Every slot of these stays after admission, from the true history; `rows` [B] are their numbers in the test."""
    net = model.net
    run = forced(net, part)
    first, place = first_value(part)
    chart = charted(part)
    came = ~run.z.isnan() & (run.place > 0)
    keep, label = came & ~net.label[run.item], came & net.label[run.item]
    log_p, pit = likelihood(net, run)
    mass, scale = run.outcome.marginal.masses(), net.scale[run.item]
    q = run.outcome.marginal.quantile(LEVELS.expand(len(mass), -1))
    y = part.value[run.row, run.place, run.item]
    spread = table.jittered(y, run.item, f"next/{int(rows[0])}")
    nan = float("nan")
    group = rows[run.row] * PLACES + run.place
    values = {
        "y": y,
        "item": run.item,
        "last": torch.where(run.last_seen > 0, chart.value[run.row, (run.place - 1).clamp_min(0), run.item], nan),
        "first": torch.where(place[run.row, run.item] < run.place, first[run.row, run.item], nan),
        "point": from_z(q[:, MEDIAN], scale),
        "nll": -log_p,
        "inside": ((spread >= q[:, LOW_80]) & (spread <= q[:, HIGH_80])).float(),
        "reported": ((run.z >= q[:, LOW_80]) & (run.z <= q[:, HIGH_80])).float(),
        "crps": pinball_crps(q, run.z),
        "group": group,
        "where": group * _I + run.item,
    }
    groups, index = torch.unique(group[keep], return_inverse=True)
    joint = float(log_copula(normal_score(pit[keep]), run.outcome.loading[keep], index, len(groups)).sum())
    right = (mass.argmax(-1) == run.z.nan_to_num(-1).long())[label].float()
    both = (_energy_of(run, keep, index, len(groups), together) for together in (1.0, 0.0))
    return _Part({n: v[keep] for n, v in values.items()}, *both, joint, right)


def _energy_of(run: Forced, keep: Tensor, index: Tensor, groups: int, together: float) -> Tensor:
    """Energy score [G] of the kept slots, joined by `together` (0 to 1) of the copula's loadings."""
    load, marginal = run.outcome.loading[keep], run.outcome.marginal.take(keep)
    key, paths = keys.from_seed(77, 1), []
    for p in range(JOINT_SAMPLES):
        shared = keys.normal(key, p, "shared", (groups, load.shape[1]))[0][index]
        own = keys.normal(key, p, "own", (len(load),))[0]
        level = torch.special.ndtr(latent(load * together, shared, own))
        paths.append(marginal.quantile(level))
    return energy(torch.stack(paths), run.z[keep], index, groups)


def _joined(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {n: torch.cat([p[n] for p in parts]) for n in parts[0]}


def _unknown(like: Tensor) -> Tensor:
    return torch.full_like(like, float("nan"))


def _against(ceiling: dict[str, Tensor], x: dict[str, Tensor], table: Table, name: str) -> list[dict]:
    """Oracle with other random keys, and the model, on the slots that both have."""
    slot, mine = ceiling["where"].sort()
    at = torch.searchsorted(slot, x["where"]).clamp_max(len(slot) - 1)
    both = slot[at] == x["where"]
    guess = ceiling["point"][mine[at]]
    both &= ~guess.isnan()
    pick = {n: v[both] for n, v in x.items()}
    names = {"oracle_other_luck": guess[both], f"{name} (ceiling's patients)": pick["point"]}
    names["last_value (ceiling's patients)"] = pick["last"]
    count = len(torch.unique(pick["group"] // PLACES))
    return [{**r, "patients": count} for r in table.rows(pick["y"], pick["item"], pick["last"], names, pick["group"])]


@torch.no_grad()
def full_trajectory(
    model: EHRWorldModel, test: Stays, table: Table, begin: int, ceiling: dict[str, Tensor] | None
) -> list[dict]:
    """Rows of the full-trajectory table: positions up to `begin` are given."""
    parts = [_full_of(model, table, begin, rows, part) for rows, part in by_length(clip(test, DAYS * 6), CHUNK)]
    x = _joined([slots for slots, _ in parts])
    low, high = table.normal[x["item"]].unbind(-1)
    row = {"model": model.name, **point_scores(x["y"], x["point"], x["last"], x["item"], low, high)}
    row |= {"coverage80": float(x["inside"].mean()), "crps": float(x["crps"].mean())}
    row["energy"] = float(torch.cat([score for _, score in parts]).mean())
    guesses = {"last_given_value": x["given"], "first_value": x["first"], "item_median": _unknown(x["y"])}
    out = [row, *table.rows(x["y"], x["item"], x["last"], guesses, x["group"])]
    if ceiling is not None:
        out += _against(ceiling, x, table, model.name)
    return [{"setting": f"full_trajectory_from_{begin * 4}h", **r} for r in out]


def _full_of(
    model: EHRWorldModel, table: Table, begin: int, rows: Tensor, part: Stays
) -> tuple[dict[str, Tensor], Tensor]:
    """Columns [N] of these stays' numeric slots after `begin`, from PATHS own courses, and each step's energy score."""
    given_part = cut(part, begin)
    paths = simulate(model, part, given_part, begin)  # [P, B, T, I]
    chart, shown = charted(part), charted(given_part)
    first, place = first_value(part)
    there = part.asked & ~part.value.isnan() & part.valid.unsqueeze(-1) & ~model.net.label
    row, t, item = there.nonzero(as_tuple=True)
    late = t > begin
    row, t, item = row[late], t[late], item[late]
    drawn = paths[:, row, t, item]
    ok = ~drawn.isnan().any(0)
    row, t, item, drawn = row[ok], t[ok], item[ok], drawn[:, ok]
    scale, y, nan = model.net.scale[item], part.value[row, t, item], float("nan")
    z, zp = to_z(y, scale), to_z(drawn, scale)
    even = table.jittered(y, item, f"full/{int(rows[0])}")
    low, high = zp.sort(0).values[[1, -2]]
    spread = (zp.unsqueeze(0) - zp.unsqueeze(1)).abs().sum((0, 1)) / (PATHS * (PATHS - 1))
    group = rows[row] * PLACES + t
    values = {
        "y": y,
        "item": item,
        "last": torch.where(chart.seen[row, t - 1, item], chart.value[row, t - 1, item], nan),
        "given": torch.where(shown.seen[row, -1, item], shown.value[row, -1, item], nan),
        "first": torch.where(place[row, item] < t, first[row, item], nan),
        "point": from_z(zp.median(0).values * 0.5 + zp.neg().median(0).values.neg() * 0.5, scale),
        "inside": ((even >= low) & (even <= high)).float(),
        "crps": (zp - z).abs().mean(0) - spread / 2,
        "group": group,
        "where": group * _I + item,
    }
    groups, index = torch.unique(group, return_inverse=True)
    return values, energy(zp, z, index, len(groups))


def simulate(model: EHRWorldModel, part: Stays, given: Stays, begin: int) -> Tensor:
    """Outcomes [P, B, T, I] of paths under the recorded orders; NaN where nothing was asked."""
    batch, count, _ = part.value.shape
    key = keys.fold(keys.from_seed(PATHS_SEED, batch * PATHS), "paths")
    many = Stays(*(x.repeat(PATHS, *[1] * (x.ndim - 1)) for x in given))
    state = model.resample_pending(believe(model, many, key, torch.zeros(len(key))))
    out = torch.full((PATHS * batch, count, _I), float("nan"))
    asked = part.asked.repeat(PATHS, 1, 1)
    doses = part.given.repeat(PATHS, 1, 1)
    on = torch.ones(PATHS * batch, dtype=torch.bool)
    for t in range(begin + 1, count):
        # the record goes on, and a specimen was taken whether or not the path still waits for another
        state = state._replace(alive=on, home=~on, pending=state.pending & ~asked[:, t])
        state = model.transition(state, torch.cat([asked[:, t].float(), doses[:, t]], -1), recorded=True)
        out[:, t] = torch.where(asked[:, t], state.pending_value, float("nan"))
    return out.view(PATHS, batch, count, _I)


def ceiling_of(work: Path, patients: int, begin: int | None) -> dict[str, Tensor] | None:
    """`oracle_ceiling`, kept in the work folder; None for 0 patients."""
    path = work / f"ceiling-{patients}-{'next' if begin is None else begin}.safetensors"
    if patients and not path.exists():
        with replacing(path) as part:
            save_file(oracle_ceiling(patients, begin), part)
    return load_file(path) if patients else None


@torch.no_grad()
def oracle_ceiling(patients: int, begin: int | None) -> dict[str, Tensor]:
    """Median over PATHS other random keys of the oracle, under the test's recorded behaviour: next step (`begin` None:
    each step from the true hidden state), or from the state after position `begin` on."""
    world = WardOracle()
    key = keys.from_seed(ward_rollouts.TEST_SEED, patients)
    state, where, point = world.initial(key), [], []
    steps = 84 if begin is None else DAYS * 6
    rows, paths = torch.arange(patients), None
    other = keys.fold(key.repeat_interleave(PATHS), torch.arange(PATHS).repeat(patients))
    for t in range(1, steps + 1):
        chart = world.observe(state)
        here = (chart["alive"] > 0.5) & (chart["discharged"] < 0.5)
        if not bool(here.any()):
            break
        state, chart, rows = tree.take(state, here), tree.take(chart, here), rows[here]
        if paths is not None:
            paths = tree.take(paths, here.repeat_interleave(PATHS))
        other = other[here.repeat_interleave(PATHS)]
        action = ward_rollouts.behaviour(chart, state.key, state.t)
        if begin is None or (paths is None and t == begin + 1):
            paths = world.rekey(tree.repeat(state, PATHS), other)
        state = world.transition(state, action)
        if paths is None:
            continue
        on = torch.ones(len(paths.key))
        paths = paths._replace(course=paths.course._replace(alive=on, discharged=on * 0))
        waiting = paths.records.pending
        paths = world.transition(paths, action.repeat_interleave(PATHS, 0))
        came = (action[:, :_I] >= 0.5).repeat_interleave(PATHS, 0) & ~waiting
        drawn = torch.where(came, paths.records.pending_value, float("nan")).view(-1, PATHS, _I)
        middle = (drawn.nanmedian(1).values - drawn.neg().nanmedian(1).values) / 2
        row, item = (~middle.isnan()).nonzero(as_tuple=True)
        where.append((rows[row] * PLACES + t) * _I + item)
        point.append(middle[row, item])
    return {"where": torch.cat(where), "point": torch.cat(point)}
