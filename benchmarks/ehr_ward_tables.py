"""Tables of a learned ward on the oracle's stays: next step, full trajectory, and the oracle with other luck as ceiling.

What each row means is told in `benchmarks.fidelity_ehr_world`, which prints them.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.ehr_scores import LEVELS, energy, laplace_scores, pinball_crps, point_scores
from world_models import keys, tree
from world_models.ehr_world import ward_rollouts
from world_models.ehr_world.records import cut, first_value
from world_models.ehr_world.set_outcome import bins
from world_models.ehr_world.set_outcome.copula import latent, log_copula
from world_models.ehr_world.set_outcome.inference import believe
from world_models.ehr_world.set_outcome.losses import forced, likelihood, normal_score
from world_models.ehr_world.set_outcome.stay_tensors import Stays, charted
from world_models.ehr_world.set_outcome.world import EHRWorldModel
from world_models.ehr_world.vocabulary import from_z, report_grid, to_z
from world_models.files import replacing
from world_models.oracles.ward.world import WardOracle
from world_models.quantities.ward import INQUIRIES

__all__ = ["DAYS", "PATHS", "Table", "by_length", "ceiling_of", "clip", "first_value", "full_trajectory", "next_step", "simulate"]

PATHS, DAYS, CHUNK = 19, 7, 100  # of 19 paths the second and the last but one bound 80 % of a right model's mass
_I = len(INQUIRIES)


def clip(stays: Stays, steps: int) -> Stays:
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
        numbers = [i.normal if i.normal and not i.labels else (float("nan"), float("nan")) for i in model.vocabulary.items]
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


@torch.no_grad()
def next_step(model: EHRWorldModel, test: Stays, table: Table, ceiling: dict[str, Tensor] | None) -> list[dict]:
    """Rows of the next-step table."""
    net, found = model.net, {n: [] for n in ("y", "item", "last", "first", "point", "nll", "inside", "reported", "crps", "group", "where")}
    es, es_alone, right, labels, joint = [], [], [], [], 0.0
    for rows, part in by_length(test, CHUNK):
        run = forced(net, part)
        first, place = first_value(part)
        chart = charted(part)
        keep = ~run.z.isnan() & ~net.label[run.item] & (run.place > 0)
        log_p, pit = likelihood(net, run)
        mass, edges, scale = run.outcome.log_mass.exp(), run.outcome.edges, net.scale[run.item]
        label = net.label[run.item] & ~run.z.isnan() & (run.place > 0)
        right.append((mass.argmax(-1) == run.z.nan_to_num(-1).long())[label].float())
        labels.append(run.z[label])
        q = bins.quantile(mass, LEVELS.expand(len(mass), -1), edges, run.outcome.around)
        y = part.value[run.row, run.place, run.item]
        spread = table.jittered(y, run.item, f"next/{int(rows[0])}")
        last = torch.where(run.last_seen > 0, chart.value[run.row, (run.place - 1).clamp_min(0), run.item], float("nan"))
        earlier = place[run.row, run.item] < run.place
        start = torch.where(earlier, first[run.row, run.item], float("nan"))
        values = {
            "y": y, "item": run.item, "last": last, "first": start, "point": from_z(q[:, 9], scale), "nll": -log_p,
            "inside": ((spread >= q[:, 1]) & (spread <= q[:, 17])).float(),
            "reported": ((run.z >= q[:, 1]) & (run.z <= q[:, 17])).float(), "crps": pinball_crps(q, run.z),
            "group": rows[run.row] * 100 + run.place, "where": (rows[run.row] * 100 + run.place) * _I + run.item,
        }  # fmt: skip
        for n, x in values.items():
            found[n].append(x[keep])
        groups, index = torch.unique(values["group"][keep], return_inverse=True)
        joint += float(log_copula(normal_score(pit[keep]), run.outcome.loading[keep], index, len(groups)).sum())
        load, mass_k, edges_k = run.outcome.loading[keep], mass[keep], edges[keep]
        around_k = bins.Around(*(x[keep] for x in run.outcome.around))
        key = keys.from_seed(77, 1)
        for together, out in ((1.0, es), (0.0, es_alone)):
            paths = []
            for p in range(16):
                shared = keys.normal(key, p, "shared", (len(groups), load.shape[1]))[0][index]
                own = keys.normal(key, p, "own", (len(load),))[0]
                paths.append(bins.quantile(mass_k, torch.special.ndtr(latent(load * together, shared, own)), edges_k, around_k))
            out.append(energy(torch.stack(paths), run.z[keep], index, len(groups)))
    x = {n: torch.cat(v) for n, v in found.items()}
    low, high = table.normal[x["item"]].unbind(-1)
    row = {"model": model.name, **point_scores(x["y"], x["point"], x["last"], x["item"], low, high)}
    row |= {"nll": float(x["nll"].mean()), "coverage80": float(x["inside"].mean())}
    row |= {"coverage80_of_rounded": float(x["reported"].mean()), "crps": float(x["crps"].mean())}
    row |= {"energy": float(torch.cat(es).mean()), "energy_independent_slots": float(torch.cat(es_alone).mean())}
    row |= {"copula_nats_a_value": joint / len(x["y"])}
    row |= {"label_accuracy": float(torch.cat(right).mean()), "labels": len(torch.cat(labels))}
    guesses = {"last_value": x["last"], "first_value": x["first"], "item_median": torch.full_like(x["y"], float("nan"))}
    table_rows = [row, *table.rows(x["y"], x["item"], x["last"], guesses, x["group"])]
    if ceiling is not None:
        table_rows += _against(ceiling, x, table, row["model"])
    seen = ~x["last"].isnan()
    before = {n: v[seen] for n, v in x.items()}
    names = {f"{row['model']} (items charted before)": before["point"], "last_value (items charted before)": before["last"]}
    table_rows += table.rows(before["y"], before["item"], before["last"], names, before["group"])
    return [{"setting": "next_step", **r} for r in table_rows]


def _against(ceiling: dict[str, Tensor], x: dict[str, Tensor], table: Table, name: str) -> list[dict]:
    """Oracle with other luck, and the model, on the slots that both have."""
    slot, mine = ceiling["where"].sort()
    at = torch.searchsorted(slot, x["where"]).clamp_max(len(slot) - 1)
    both = slot[at] == x["where"]
    guess = ceiling["point"][mine[at]]
    both &= ~guess.isnan()
    pick = {n: v[both] for n, v in x.items()}
    names = {"oracle_other_luck": guess[both], f"{name} (ceiling's patients)": pick["point"]}
    names["last_value (ceiling's patients)"] = pick["last"]
    count = len(torch.unique(pick["group"] // 100))
    return [{**r, "patients": count} for r in table.rows(pick["y"], pick["item"], pick["last"], names, pick["group"])]


@torch.no_grad()
def full_trajectory(model: EHRWorldModel, test: Stays, table: Table, begin: int, ceiling: dict[str, Tensor] | None) -> list[dict]:
    """Rows of the full-trajectory table: positions up to `begin` are given."""
    test = clip(test, DAYS * 6)
    found = {n: [] for n in ("y", "item", "last", "given", "first", "point", "inside", "crps", "group", "where")}
    es = []
    for rows, part in by_length(test, CHUNK):
        part_begin = cut(part, begin)
        paths = simulate(model, part, part_begin, begin)  # [P, B, T, I]
        chart = charted(part)
        first, place = first_value(part)
        row, t, item = (part.asked & ~part.value.isnan() & part.valid.unsqueeze(-1) & ~model.net.label).nonzero(as_tuple=True)
        late = t > begin
        row, t, item = row[late], t[late], item[late]
        drawn = paths[:, row, t, item]
        ok = ~drawn.isnan().any(0)
        row, t, item, drawn = row[ok], t[ok], item[ok], drawn[:, ok]
        scale = model.net.scale[item]
        z, zp = to_z(part.value[row, t, item], scale), to_z(drawn, scale)
        even = table.jittered(part.value[row, t, item], item, f"full/{int(rows[0])}")
        low_high = zp.sort(0).values[[1, -2]]
        spread = (zp.unsqueeze(0) - zp.unsqueeze(1)).abs().sum((0, 1)) / (PATHS * (PATHS - 1))
        shown = charted(part_begin)
        given = torch.where(shown.seen[row, -1, item], shown.value[row, -1, item], float("nan"))
        seen = chart.seen[row, t - 1, item]
        values = {
            "y": part.value[row, t, item], "item": item,
            "last": torch.where(seen, chart.value[row, t - 1, item], float("nan")), "given": given,
            "first": torch.where(place[row, item] < t, first[row, item], float("nan")),
            "point": from_z(zp.median(0).values * 0.5 + zp.neg().median(0).values.neg() * 0.5, scale),
            "inside": ((even >= low_high[0]) & (even <= low_high[1])).float(),
            "crps": (zp - z).abs().mean(0) - spread / 2, "group": rows[row] * 100 + t,
            "where": (rows[row] * 100 + t) * _I + item,
        }  # fmt: skip
        for n, x in values.items():
            found[n].append(x)
        groups, index = torch.unique(values["group"], return_inverse=True)
        es.append(energy(zp, z, index, len(groups)))
    x = {n: torch.cat(v) for n, v in found.items()}
    low, high = table.normal[x["item"]].unbind(-1)
    row = {"model": model.name, **point_scores(x["y"], x["point"], x["last"], x["item"], low, high)}
    row |= {"coverage80": float(x["inside"].mean()), "crps": float(x["crps"].mean()), "energy": float(torch.cat(es).mean())}
    guesses = {"last_given_value": x["given"], "first_value": x["first"], "item_median": torch.full_like(x["y"], float("nan"))}
    out = [row, *table.rows(x["y"], x["item"], x["last"], guesses, x["group"])]
    if ceiling is not None:
        out += _against(ceiling, x, table, row["model"])
    return [{"setting": f"full_trajectory_from_{begin * 4}h", **r} for r in out]


def simulate(model: EHRWorldModel, part: Stays, given: Stays, begin: int) -> Tensor:
    """Outcomes [P, B, T, I] of paths under the recorded orders; NaN where nothing was asked."""
    batch, count, _ = part.value.shape
    key = keys.fold(keys.from_seed(900_000_000, batch * PATHS), "paths")
    many = Stays(*(x.repeat(PATHS, *[1] * (x.ndim - 1)) for x in given))
    state = model.resample_pending(believe(model, many, key, torch.zeros(len(key))))
    out = torch.full((PATHS * batch, count, _I), float("nan"))
    asked = part.asked.repeat(PATHS, 1, 1)
    doses = part.given.repeat(PATHS, 1, 1)
    on = torch.ones(PATHS * batch, dtype=torch.bool)
    for t in range(begin + 1, count):
        # the record goes on, and a specimen was taken whether or not the path still waits for another
        state = state._replace(alive=on, home=~on, pending=state.pending & ~asked[:, t])
        state = model.transition(state, torch.cat([asked[:, t].float(), doses[:, t]], -1))
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
    """Median over PATHS other lucks of the oracle, under the test's recorded behaviour: next step (`begin` None: each step
    from the true hidden state), or from the state after position `begin` on."""
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
        where.append((rows[row] * 100 + t) * _I + item)
        point.append(middle[row, item])
    return {"where": torch.cat(where), "point": torch.cat(point)}
