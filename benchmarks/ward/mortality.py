"""Death within 72 h: what a learned ward foretells from the chart, against what happens in the oracle.

Both wards are under the plain clinician, which sees the chart of the world it works in. A path's chance of death is
one minus the product of its chances to live through each step, on paths that live on (death itself is not drawn: it
would only add noise); the forecast is the mean over paths. A long chain of steps magnifies small errors, so the
forecast also stands with its log odds shifted and scaled by two numbers fitted to validation patients. Beside it: the
base rate, gradient boosting on the chart (fitted to other patients' deaths directly, with no model of the stay), and
the oracle's own chance with the hidden state known, which nobody who sees only charts can reach.
"""

from __future__ import annotations

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.ward.scores import brier
from world_models import keys, tree
from world_models.ehr_world import ward_rollouts
from world_models.ehr_world.records import cut
from world_models.ehr_world.set_outcome.inference import believe
from world_models.ehr_world.set_outcome.stay_tensors import Stays, charted
from world_models.ehr_world.set_outcome.world import EHRWorldModel
from world_models.oracles.ward.clinician import clinician
from world_models.oracles.ward.world import WardOracle
from world_models.protocol import Chart

__all__ = ["HORIZON", "learned_chance", "mortality", "plain", "stays_from"]

HORIZON = 18  # steps of four hours
_RIVAL_PATIENTS = 16000
DEATH_SEED = 910_000_000  # of the learned ward's courses
TEST_OFFSET = 50_000  # seeds of the judged and of the recalibrating patients, past the splits' first


def plain(chart: Chart, key: Tensor, t: Tensor, severity: Tensor | None = None, confounding: float = 0.0) -> Tensor:
    """Orders of the plain clinician, as `ward_rollouts.rollout` asks for them."""
    return clinician(chart)


def stays_from(seed: int, patients: int, begin: int) -> tuple[Stays, Tensor, Tensor]:
    """Oracle stays of those still in the ward after position `begin`; who dies within the horizon; who was there."""
    stays = ward_rollouts.rollout(keys.from_seed(seed, patients), begin + HORIZON, orders=plain)
    there = stays.valid[:, begin] & stays.alive[:, begin] & ~stays.home[:, begin]
    stays = tree.take(stays, there)
    return stays, (~stays.alive & stays.valid).any(1), there


@torch.no_grad()
def learned_chance(model: EHRWorldModel, stays: Stays, begin: int, paths: int, chunk: int = 250) -> Tensor:
    """Chance [B] of death within the horizon, from what was charted up to position `begin`."""
    out = []
    for rows in tqdm(torch.arange(len(stays.static)).split(chunk), desc=f"death from {begin * 4} h", mininterval=1):
        many = tree.repeat(tree.take(cut(stays, begin), rows), paths)
        key = keys.fold(keys.from_seed(DEATH_SEED + int(rows[0]) * paths, len(rows) * paths), "death")
        state = model.resample_pending(believe(model, many, key, torch.zeros(len(key))))
        lives = torch.ones(len(key))
        for _ in range(HORIZON):
            state = model.transition(state, clinician(model.observe(state)))
            lives = lives * (1.0 - state.death_chance)  # 0 for those at home
            state = state._replace(alive=torch.ones_like(state.alive))
        out.append(1.0 - lives.view(-1, paths).mean(1))
    return torch.cat(out)


@torch.no_grad()
def oracle_chance(seed: int, patients: int, there: Tensor, begin: int, paths: int) -> Tensor:
    """Chance [B] from the hidden state: the share of `paths` other random keys that die."""
    world = WardOracle()
    state = world.initial(keys.from_seed(seed, patients))
    for _ in range(begin):
        state = world.transition(state, clinician(world.observe(state)))
    state = tree.take(state, there)
    other = keys.fold(state.key.repeat_interleave(paths), torch.arange(paths).repeat(len(state.key)))
    state = world.rekey(tree.repeat(state, paths), other)
    for _ in range(HORIZON):
        state = world.transition(state, clinician(world.observe(state)))
    return (world.observe(state)["alive"] < 0.5).float().view(-1, paths).mean(1)


def _features(stays: Stays, begin: int) -> Tensor:
    chart = charted(cut(stays, begin))
    absent = -99.0  # outside every item's range: a tree splits it off
    shown = [torch.where(chart.seen[:, t], chart.value[:, t], absent) for t in (0, begin)]
    return torch.cat([*shown, chart.age[:, begin], stays.static, stays.given[:, begin]], -1)


def boosted_chance(stays: Stays, begin: int) -> Tensor:
    """Chance [B] by histogram gradient boosting on charts of other patients of the oracle (training seeds)."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    x, y = [], []
    for i in range(4):
        seed = ward_rollouts.TRAIN_SEED + 500_000 + i * _RIVAL_PATIENTS // 4
        other, died, _ = stays_from(seed, _RIVAL_PATIENTS // 4, begin)
        x.append(_features(other, begin))
        y.append(died)
    fitted = HistGradientBoostingClassifier(
        max_iter=150, learning_rate=0.05, max_leaf_nodes=8, min_samples_leaf=40, l2_regularization=5.0, random_state=0
    ).fit(torch.cat(x).numpy(), torch.cat(y).numpy())
    return torch.from_numpy(fitted.predict_proba(_features(stays, begin).numpy())[:, 1]).float()


def _log_odds(chance: Tensor) -> Tensor:
    return torch.logit(chance.clamp(1e-4, 1 - 1e-4))


def recalibration(chance: Tensor, died: Tensor) -> tuple[float, float]:
    """Shift and slope of the log odds that make forecasts [B] likeliest (Cox 1958; Platt 1999 (k)), by Newton's
    method."""
    x = torch.stack([torch.ones_like(chance), _log_odds(chance)], -1).double()
    y, w = died.double(), torch.tensor([0.0, 1.0], dtype=torch.float64)
    for _ in range(25):
        p = torch.sigmoid(x @ w)
        pull = w - torch.tensor([0.0, 1.0], dtype=torch.float64)  # a death's worth of belief in the forecast as it is
        gradient = x.T @ (p - y) + pull
        w = w - torch.linalg.solve(
            x.T @ (x * (p * (1 - p)).unsqueeze(-1)) + torch.eye(2, dtype=torch.float64), gradient
        )
    return float(w[0]), float(w[1])


def mortality(
    model: EHRWorldModel, patients: int, begin: int, paths: int = 8, oracle_paths: int = 16, seed: int | None = None
) -> list[dict]:
    """Rows of the table of deaths within 72 h after position `begin`; `oracle_paths` 0 leaves the oracle's row out."""
    seed = ward_rollouts.TEST_SEED + TEST_OFFSET if seed is None else seed
    stays, died, there = stays_from(seed, patients, begin)
    valid, fate, _ = stays_from(ward_rollouts.VALID_SEED + TEST_OFFSET, patients, begin)
    shift, slope = recalibration(learned_chance(model, valid, begin, paths), fate)
    plainly = learned_chance(model, stays, begin, paths)
    guesses = {
        model.name: plainly,
        f"{model.name}, recalibrated": torch.sigmoid(shift + slope * _log_odds(plainly)),
        "gradient_boosting": boosted_chance(stays, begin),
    }
    if oracle_paths:
        guesses["oracle_hidden_state_known"] = oracle_chance(seed, patients, there, begin, oracle_paths)
    named = {"setting": f"death_72h_from_{begin * 4}h", "patients": len(died), "deaths": int(died.sum())}
    rows = [{**named, "model": name, **brier(chance, died)} for name, chance in guesses.items()]
    rows[1] |= {"shift": shift, "slope": slope}
    for row in rows[3:]:  # a share of a few keys is 0 for most: no forecast whose reliability could be judged
        del row["groups_outside_band_of_5"], row["largest_gap"]
    return rows
