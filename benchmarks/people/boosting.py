"""Gradient boosting for each item (LightGBM), chosen on validation patients: quantiles, and whether a report repeats.

One model an item and level of QUANTILES foretells the value, or its change against the last one, whichever is better on
the validation patients, who also choose learning rate and leaves, and when to stop. Where reports repeat themselves,
the quantiles are those of reports that do not, and a classifier gives the share of the mass on the last report's cell.
The width of the quantiles is corrected per item by one factor: the outer ones hold their share of validation values.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.common.spent import spending
from benchmarks.people.design import Design, table
from benchmarks.people.prediction import Scale, from_quantiles, refined, said_again
from benchmarks.people.slots import Places
from world_models.ehr_world.set_outcome.marginal import Marginal
from world_models.files import write_text

__all__ = ["QUANTILES", "RATES", "SIZES", "Boosting", "Taught", "lightgbm", "train"]

QUANTILES = (0.05, 0.15, 0.3, 0.5, 0.7, 0.85, 0.95)
MIDDLE = QUANTILES.index(0.5)
RATES, SIZES = (0.05, 0.12), (12, 31)  # learning rates, leaves
FEWEST = 200  # values to learn from; an item with fewer repeats its last one
REPEATS = 0.02  # share of reports equal to the last one from which a classifier pays
TREES, PATIENCE = 600, 25
TRIAL = 12_000  # rows that settings are chosen with
JUDGES = 6_000  # validation rows of an item, at most
FIXED = {
    "max_bin": 63,
    "min_data_in_leaf": 40,
    "lambda_l2": 1.0,
    "feature_fraction": 0.6,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "num_threads": 1,
    "seed": 0,
    "deterministic": True,
    "force_col_wise": True,
    "verbosity": -1,
}


class Taught(NamedTuple):
    """Places with their features."""

    places: Places
    design: Design


class _Item(NamedTuple):
    quantiles: list[Any]  # a booster for each of QUANTILES; none: too few values
    repeats: Any | None
    told: dict[str, Any]  # the setting, and how wide the quantiles are made


def lightgbm() -> Any:
    """The library. Raises ImportError: it is not installed."""
    try:
        import lightgbm
    except ImportError:
        raise ImportError("gradient boosting needs LightGBM: pip install 'clinenv[people]'") from None
    return lightgbm


class _Rows(NamedTuple):
    """One item's rows."""

    x: Any  # float32 [M, F]
    z: Tensor  # [M]
    base: Tensor  # [M] z of the value known, or the item's median
    same: Tensor  # bool [M] reported again


def _rows(taught: Taught, item: int, scale: Scale, columns: Tensor, middle: float, most: int, seed: int) -> _Rows:
    at = (taught.places.item == item).nonzero().squeeze(1)
    if len(at) > most:
        at = at[torch.randperm(len(at), generator=torch.Generator().manual_seed(seed))[:most].sort().values]
    y, given = taught.places.y[at], taught.places.given[at]
    items = torch.full_like(at, item)
    low, high = scale.cell(given.nan_to_num(0.0), items)
    z = scale.z(y, items)
    same = ~given.isnan() & (z >= low) & (z <= high) & (scale.grid[item] > 0)
    base = taught.design.base[at].double().nan_to_num(middle)
    return _Rows(table(taught.design, at, columns).numpy(), z, base, same)


def _fit(x: Any, y: Tensor, judge_x: Any, judge_y: Tensor, setting: dict[str, Any], trees: int) -> Any:
    lgb = lightgbm()
    data = lgb.Dataset(x, y.float().numpy(), params={"max_bin": FIXED["max_bin"], "verbosity": -1})
    judges = data.create_valid(judge_x, judge_y.float().numpy())
    stop = lgb.early_stopping(PATIENCE, verbose=False)
    return lgb.train({**FIXED, **setting}, data, trees, valid_sets=[judges], callbacks=[stop])


def _choose(rows: _Rows, judges: _Rows) -> dict[str, Any]:
    """Learning rate, leaves, and whether the change is foretold, by the mean absolute error of the median."""
    pick = torch.randperm(len(rows.z), generator=torch.Generator().manual_seed(1))[:TRIAL].sort().values
    best: dict[str, Any] = {"error": float("inf")}
    tried = []
    for change, rate, leaves in [(True, *s) for s in itertools.product(RATES, SIZES)] + [(False, None, None)]:
        rate, leaves = rate or best["learning_rate"], leaves or best["num_leaves"]
        setting = {"objective": "quantile", "alpha": 0.5, "metric": "quantile"}
        setting |= {"learning_rate": rate, "num_leaves": leaves}
        model = _fit(
            rows.x[pick.numpy()],
            (rows.z - change * rows.base)[pick],
            judges.x,
            judges.z - change * judges.base,
            setting,
            TREES,
        )
        error = 2 * float(model.best_score["valid_0"]["quantile"])
        row = {"learning_rate": rate, "num_leaves": leaves, "change": change, "error": error}
        tried.append(row | {"trees": model.best_iteration})
        best = min(best, row, key=lambda r: r["error"])
    return best | {"tried": tried}


def _train_item(rows: _Rows, judges: _Rows) -> _Item:
    told = _choose(rows, judges)
    setting = {n: told[n] for n in ("learning_rate", "num_leaves")}
    told |= {"rows": len(rows.z), "repeated": float(rows.same.double().mean())}
    again = told["repeated"] > REPEATS and float(judges.same.double().mean()) > 0
    repeats = None
    if again:
        binary = {"objective": "binary", "metric": "binary_logloss", **setting}
        repeats = _fit(rows.x, rows.same, judges.x, judges.same, binary, TREES)
    keep, mine = (~r.same if again else torch.ones_like(r.same) for r in (rows, judges))
    models = []
    for level in QUANTILES:
        one = {"objective": "quantile", "alpha": level, "metric": "quantile", **setting}
        y, judged = (r.z - told["change"] * r.base for r in (rows, judges))
        models.append(_fit(rows.x[keep.numpy()], y[keep], judges.x[mine.numpy()], judged[mine], one, TREES))
    item = _Item(models, repeats, told | {"factor": 1.0})
    q = _quantiles(item, judges)[mine]
    return item._replace(told=item.told | {"factor": _factor(q, judges.z[mine])})


def _factor(q: Tensor, z: Tensor) -> float:
    """By what the quantiles' distances from the median are multiplied so that the outer ones hold what they should."""
    middle = q[:, MIDDLE]
    side = torch.where(z < middle, middle - q[:, 0], q[:, -1] - middle).clamp_min(1e-6)
    held = QUANTILES[-1] - QUANTILES[0]
    return float(torch.quantile((z - middle).abs() / side, held).clamp(0.5, 2.0))


def _predict(model: Any, x: Any) -> Tensor:
    return torch.from_numpy(model.predict(x, num_iteration=model.best_iteration, num_threads=1))


def _quantiles(item: _Item, rows: _Rows) -> Tensor:
    """[M, Q] on the z scale."""
    told = torch.stack([_predict(m, rows.x) for m in item.quantiles], 1).sort(1).values
    told = told + item.told["change"] * rows.base.unsqueeze(1)
    middle = told[:, MIDDLE : MIDDLE + 1]
    return middle + item.told["factor"] * (told - middle)


class Boosting:
    """Trained models in a folder."""

    def __init__(self, folder: Path, columns: Tensor, medians: Tensor, spreads: Tensor, scale: Scale) -> None:
        self.folder, self.columns, self.medians, self.scale = folder, columns, medians, scale
        self.spreads = spreads  # [I, Q] quantiles of the change against the last value

    def says(self, taught: Taught) -> Marginal:
        """The distributions of places."""
        count = len(taught.places.y)
        q, share = torch.zeros(count, len(QUANTILES), dtype=torch.float64), torch.zeros(count, dtype=torch.float64)
        for i in taught.places.item.unique().tolist():
            at = (taught.places.item == i).nonzero().squeeze(1)
            rows = _rows(taught, i, self.scale, self.columns, float(self.medians[i]), len(at), 0)
            item = _load(self.folder, i)
            if not item.quantiles:
                q[at] = rows.base.unsqueeze(1) + self.spreads[i]
                continue
            q[at] = _quantiles(item, rows)
            if item.repeats is not None:
                share[at] = _predict(item.repeats, rows.x)
        items, report = taught.places.item, taught.places.given
        plain = from_quantiles(*refined(q, torch.tensor(QUANTILES)), self.scale, items)
        return said_again(plain, share, report, self.scale, items)


def _save(folder: Path, number: int, item: _Item) -> None:
    texts = [m.model_to_string(num_iteration=m.best_iteration) for m in item.quantiles]
    again = item.repeats.model_to_string(num_iteration=item.repeats.best_iteration) if item.repeats else None
    write_text(folder / f"item-{number}.json", json.dumps({"told": item.told, "quantiles": texts, "repeats": again}))


def _load(folder: Path, number: int) -> _Item:
    lgb, plain = lightgbm(), json.loads((folder / f"item-{number}.json").read_text())
    again = plain["repeats"]
    models = [lgb.Booster(model_str=text) for text in plain["quantiles"]]
    return _Item(models, lgb.Booster(model_str=again) if again else None, plain["told"])


def train(
    learn: Taught,
    valid: Taught,
    scale: Scale,
    medians: Tensor,
    folder: Path,
    most: int = 60_000,
    items: Sequence[int] | None = None,
) -> Boosting:
    """Models of every item (or of `items`), of at most `most` rows each; goes on where an earlier run stopped."""
    folder.mkdir(parents=True, exist_ok=True)
    common = learn.design.common
    columns = (common.nan_to_num(-1e30).amin(0) < common.nan_to_num(-1e30).amax(0)).nonzero().squeeze(1)
    spreads = torch.zeros(len(medians), len(QUANTILES), dtype=torch.float64)
    with spending(folder):
        bar = tqdm(range(len(medians)) if items is None else items, desc="gradient boosting", mininterval=1)
        for i in bar:
            rows = _rows(learn, i, scale, columns, float(medians[i]), most, i)
            if len(rows.z):
                levels = torch.tensor(QUANTILES, dtype=torch.float64)
                spreads[i] = torch.quantile(rows.z - rows.base, levels)
            if (folder / f"item-{i}.json").exists():
                continue
            judges = _rows(valid, i, scale, columns, float(medians[i]), JUDGES, i)
            few = len(rows.z) < FEWEST or len(judges.z) < FEWEST // 4 or float(rows.z.amin()) == float(rows.z.amax())
            item = _Item([], None, {"rows": len(rows.z)}) if few else _train_item(rows, judges)
            _save(folder, i, item)
            bar.set_postfix({k: item.told.get(k) for k in ("error", "learning_rate", "num_leaves", "change")})
    return Boosting(folder, columns, medians, spreads, scale)
