"""Whether an encoder's view of the ECG before the dose, or a clinical query, foretells what the dose does.

    python -m benchmarks.ecg_drug.features [--features NAME|FOLDER ...] [--text FOLDER] [--out DIR] [--quick]

Oracle patients of every cohort on the real beats of its bank (LUDB) are charted and drawn, take one dose or nothing,
and are charted again. A population course (the mean change of other patients at that drug, dose and hour, by smooth
regression) is the base; on it a network learns the rest from the chart, the order and the hours, with and without the
encoder's features, with and without the query. Every arm has the same patients, width, steps and seeds; which of five
learning lengths (the shortest is none: the population course) serves it best is chosen on validation patients, and it
is judged on others. Shown are mean absolute errors of the coordinates of the second chart in their standardised units,
and of QTcF in ms, with the paired difference from the chart alone (95 %, bootstrap over patients).

The oracle's response does not depend on the beat's shape beyond what the chart holds: an encoder that helps here has
read the chart's own numbers better, and one that does not help may still help on real people. The trial's waveforms are
not at hand, so there the question stays open.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.common.intervals import mean_interval
from benchmarks.common.results import HEIGHTS, RESULTS, TRIAL_FIT, made_by
from benchmarks.ecg_drug.delineation import write
from world_models import keys, tree
from world_models.ecg_wm import latent
from world_models.ecg_wm.courses import oracle_of
from world_models.ecg_wm.features import FeatureExtractor, load_extractor
from world_models.ecg_wm.query import TextModelQuery, WordQuery, query_texts, tokens
from world_models.ecg_wm.transitions import Transition, dose_limits, oracle_pairs
from world_models.inputs import admit
from world_models.nn.mlp import mlp, sample_weights
from world_models.oracles.ecg_drug.cohorts import COHORTS
from world_models.quantities.ecg_drug import DRUGS

SEEDS = {"train": 8_100_000_000, "validation": 8_200_000_000, "test": 8_300_000_000}
FIRST_SEED = 8_400_000_000  # of the arms' first weights
PATIENTS = {"train": 4500, "validation": 900, "test": 1800}
HOURS = (1.0, 3.0, 6.0)  # each patient is seen again at one of them
WIDTH, BATCH, LENGTHS = 96, 256, (150, 300, 600, 1200)
COMPONENTS = 32  # of an encoder's features: more than that a set of this size cannot use
RATE_HZ = 500.0
INTERVALS = ("heart_rate_bpm", "pr_ms", "qrs_ms", "jt_peak_c_ms", "tpeak_tend_ms", *latent.T_WAVE)


class Part(NamedTuple):
    """One part of the patients."""

    given: Tensor  # [B, I] chart, order and hours
    target: Tensor  # [B, len(INTERVALS)] of the second chart, standardised
    first: Tensor  # [B, len(INTERVALS)]
    course: Tensor  # [B, J] what the population course is regressed on
    qtcf_ms: Tensor  # [B] of the second chart
    ecg_mv: Tensor  # [B, 12, 5000] before the dose
    texts: list[str]


def _draw(seed: int, count: int, hours: float) -> tuple[Transition, Tensor]:
    """Pairs and the ECG before the dose."""
    key = keys.from_seed(seed, count)
    low, high = dose_limits()
    drug = (keys.uniform(key, 0, "drug") * (1 + len(DRUGS))).long().clamp_max(len(DRUGS))
    which = (drug - 1).clamp_min(0)
    dose = low[which] * (high / low)[which] ** keys.uniform(key, 0, "dose")
    data = oracle_pairs(key, hours, drug, torch.where(drug > 0, dose, 0.0))
    names = sorted(COHORTS)
    state = tree.cat(
        [admit(oracle_of(n, hours, "cpu"), k, {}) for n, k in zip(names, key.chunk(len(names)), strict=False)]
    )
    oracle = oracle_of(names[0], hours, "cpu")
    rows = torch.arange(count).split(200)
    return data, torch.cat([oracle.observe(tree.take(state, r), ("ecg_mv",))["ecg_mv"] for r in rows])


def _part(name: str, quick: bool) -> Part:
    count = PATIENTS[name] // (10 if quick else 1) // len(HOURS)
    found = [_draw(SEEDS[name] + i * 1_000_000, count, h) for i, h in enumerate(tqdm(HOURS, desc=name, mininterval=5))]
    columns = [latent.COORDINATES.index(n) for n in INTERVALS]
    parts = []
    for data, ecg in found:
        high = dose_limits()[1]
        order = data.dose_mg.unsqueeze(-1) * nn.functional.one_hot(data.drug, 1 + len(DRUGS))[:, 1:]
        share = order / high
        when = torch.stack([data.hours / 6.0, (-data.hours).exp(), (-data.hours / 3).exp()], -1)
        course = torch.cat([(share.unsqueeze(-1) * when.unsqueeze(1)).flatten(1), share, share.square(), when], -1)
        who = (data.covariates - torch.tensor([60.0, 0.5, 76.0, 85.0, 12.0])) / torch.tensor(
            [15.0, 0.5, 15.0, 30.0, 7.0]
        )
        given = torch.cat([data.before, who, share, when, course], -1).nan_to_num()
        chart = {k: v for k, v in data.charts[0].items() if v.ndim == 1}
        texts = query_texts(chart, order)
        after = data.after[:, columns]
        parts.append(Part(given, after, data.before[:, columns], course, data.charts[1]["qtcf_ms"], ecg, texts))
    joined = [torch.cat([p[i] for p in parts]) for i in range(6)]
    return Part(*joined, [t for p in parts for t in p.texts])


def _population(train: Part, of: Part) -> Tensor:
    """The population course of `of`'s orders: mean change by ridge regression on `train`."""

    def basis(part: Part) -> Tensor:
        return torch.cat([part.course, torch.ones(len(part.course), 1)], -1).double()

    x, change = basis(train), (train.target - train.first).nan_to_num().double()
    weight = torch.linalg.solve(x.T @ x + 1e-3 * len(x) * torch.eye(x.shape[-1]).double(), x.T @ change)
    return (basis(of) @ weight).float()


class Arm(nn.Module):
    """The rest of the change from what this arm is shown."""

    def __init__(self, given: int, features: int, query: int, words: bool):
        super().__init__()
        self.query = WordQuery(query) if words else None
        self.network = mlp((given + features + query, WIDTH, WIDTH, len(INTERVALS)), zero_last=True)

    def forward(self, shown: Tensor, word: Tensor | None, value: Tensor | None) -> Tensor:
        parts = [shown]
        if self.query is not None and word is not None and value is not None:
            parts.append(self.query.embed(word, value))
        return self.network(torch.cat(parts, -1))


class Shown(NamedTuple):
    """What an arm is shown of each part, and the words it reads."""

    shown: dict[str, Tensor]
    words: dict[str, tuple[Tensor, Tensor]] | None
    features: int
    query: int


def _error(made: Tensor, part: Part) -> Tensor:
    return (made - part.target).abs().nanmean(-1)


def _run(parts: dict[str, Part], base: dict[str, Tensor], shown: Shown) -> tuple[Tensor, int]:
    """Predictions [B, len(INTERVALS)] for the test part, at the length that served validation best; and that length."""
    arm = Arm(shown.shown["train"].shape[-1] - shown.features, shown.features, shown.query, shown.words is not None)
    sample_weights(arm, FIRST_SEED)
    optimiser = torch.optim.AdamW(arm.parameters(), lr=2e-3, weight_decay=1e-3)
    count = len(shown.shown["train"])
    rest = (parts["train"].target - parts["train"].first).nan_to_num() - base["train"]

    def predict(name: str) -> Tensor:
        word, value = shown.words[name] if shown.words else (None, None)
        with torch.no_grad():
            return parts[name].first + base[name] + arm(shown.shown[name], word, value)

    best, made, length = float(_error(predict("validation"), parts["validation"]).mean()), predict("test"), 0
    for step in range(1, LENGTHS[-1] + 1):
        row = (keys.uniform(keys.from_seed(step, 1), 0, "batch", (BATCH,))[0] * count).long().clamp_max(count - 1)
        word, value = (w[row] for w in shown.words["train"]) if shown.words else (None, None)
        loss = nn.functional.smooth_l1_loss(arm(shown.shown["train"][row], word, value), rest[row])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step in LENGTHS:
            error = float(_error(predict("validation"), parts["validation"]).mean())
            if error < best:
                best, made, length = error, predict("test"), step
    return made, length


def _reduced(extractor: FeatureExtractor, parts: dict[str, Part]) -> dict[str, Tensor]:
    """Features of each part, standardised on the training part, in its first components."""
    fitted = extractor.fitted(parts["train"].ecg_mv, RATE_HZ)
    found = {name: fitted(part.ecg_mv, RATE_HZ) for name, part in parts.items()}
    _, size, direction = torch.linalg.svd(found["train"], full_matrices=False)
    keep = min(COMPONENTS, len(size))
    scale = size[:keep].clamp_min(1e-6) / len(found["train"]) ** 0.5
    return {name: (h @ direction[:keep].T) / scale for name, h in found.items()}


def _qtcf(u: Tensor) -> Tensor:
    """QTcF [B] in ms of predicted coordinates [B, len(INTERVALS)]."""
    full = torch.zeros(len(u), latent.COORDS)
    for i, name in enumerate(INTERVALS):
        full[:, latent.COORDINATES.index(name)] = u[:, i]
    return latent.intervals_of(full)["qtcf_ms"]


def _row(name: str, made: Tensor, part: Part, alone: Tensor | None, length: int) -> dict:
    each, qtcf = _error(made, part), (_qtcf(made) - part.qtcf_ms).abs()
    apart = None if alone is None else mean_interval(each - _error(alone, part))
    return {
        "arm": name,
        "patients": len(each),
        "steps": length,
        "mean_absolute_error": round(float(each.mean()), 4),
        "qtcf_error_ms": round(float(qtcf.nanmean()), 2),
        "minus_chart_alone": "" if apart is None else round(apart.value, 4),
        "low": "" if apart is None else round(apart.low, 4),
        "high": "" if apart is None else round(apart.high, 4),
    }


def compare(features: Sequence[str], text: Path | None, quick: bool) -> list[dict]:
    """Rows of the table: persistence, population course, chart alone, each encoder, each query, and both."""
    parts = {name: _part(name, quick) for name in SEEDS}
    base = {name: _population(parts["train"], part) for name, part in parts.items()}
    test = parts["test"]
    rows = [_row("persistence", test.first, test, None, 0)]
    rows.append(_row("population course", test.first + base["test"], test, None, 0))
    given = {name: part.given for name, part in parts.items()}
    encoded = {name: _reduced(load_extractor(name), parts) for name in features}
    words = {name: tokens(part.texts) for name, part in parts.items()}
    arms = {"chart": Shown(given, None, 0, 0), "chart, query (own words)": Shown(given, words, 0, 32)}
    for name, h in encoded.items():
        both = {n: torch.cat([given[n], h[n]], -1) for n in given}
        size = h["train"].shape[-1]
        arms[f"chart, {Path(name).name}"] = Shown(both, None, size, 0)
        arms[f"chart, {Path(name).name}, query (own words)"] = Shown(both, words, size, 32)
    if text is not None:
        model = TextModelQuery(text)
        said = {
            n: torch.cat([model(list(part.texts[i : i + 64])) for i in range(0, len(part.texts), 64)])
            for n, part in parts.items()
        }
        both = {n: torch.cat([given[n], said[n]], -1) for n in given}
        arms[f"chart, query ({text.name})"] = Shown(both, None, said["train"].shape[-1], 0)
    alone: Tensor | None = None
    for name, shown in arms.items():
        made, length = _run(parts, base, shown)
        rows.append(_row(name, made, test, alone, length))
        alone = made if alone is None else alone
    return rows


def main(argv: list[str] | None = None) -> None:
    """The table features.csv."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--features", nargs="*", default=["cardiac-jepa-small"], help="encoders: names or folders")
    parser.add_argument("--text", type=Path, help="folder of a transformers text model")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--quick", action="store_true", help="a tenth of the patients")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    made = made_by("benchmarks.ecg_drug.features", argv, SEEDS, files=[TRIAL_FIT, HEIGHTS])
    write(options.out / "features.csv", compare(options.features, options.text, options.quick), made)


if __name__ == "__main__":
    main()
