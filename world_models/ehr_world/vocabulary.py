"""What a learned ward knows by name: inquiries with their bins, interventions, static features, diagnoses.

A vocabulary is made once, from the training stays, and travels as JSON in the checkpoint's config. Weights mean nothing
under another vocabulary, so a difference is an error (`Vocabulary.check`).

Numbers are handled on the item's own scale z = (g(x) - mean) / sd, where g is the logarithm (of x + shift) for skewed
items and the identity for others. Bin edges are quantiles of the training values on that scale, finer in both tails;
where values are reported on a grid (1, 0.1, 0.01 ...), edges lie halfway between grid points, so that no value sits on
an edge.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from world_models.config_json import from_json
from world_models.ehr_world.set_outcome.stay_tensors import Stays
from world_models.quantities.ward import COMPLAINTS, DISEASES, INQUIRIES, INTERVENTIONS, ORGANISMS, STATIC

__all__ = [
    "Item",
    "Spec",
    "StaticFeature",
    "Treatment",
    "Vocabulary",
    "build",
    "from_ward",
    "from_z",
    "log_slope",
    "report_grid",
    "to_z",
]
__all__ += ["SOURCE_PREFIX", "STATIC_NAMES", "collection_share", "from_ward", "ward_specs"]

# tails finer than the middle: what kills lies there
_TAIL = (0.0, 0.001, 0.005, 0.02)
MOST = 1e9  # no number of a chart is larger
MOST_EDGES = 1025  # of an item: many times what was ever trained
MOST_STEP_H = 168.0  # a week
LEAST_LOGGED, MOST_LOG = 1e-6, 30.0  # limits of a value before the logarithm, and of z before the exponential
SAMPLE = 200_000  # values of an item that its bins are made from
SKEWED = 2.0  # the upper 49 % of values spread over more than this many times the lower: the logarithm is taken
LEAST_SHIFT, SHIFT_SHARE = 1e-3, 0.1  # of the median; added before the logarithm where a value can be 0
HAIR = 1e-6  # of a value: how far the outer edges lie beyond the outer values where there is no grid
GRIDS = (1.0, 0.1, 0.01, 0.001)  # steps that values may be reported in, in their units
# a value this near to the grid lies on it; shares of the values, for bins and for how one is reported again
ON_GRID, NEARLY_ALL, MOSTLY = 1e-4, 0.999, 0.8
# usual time from a step's start to the collection, as a share of the step: vitals at its end, cultures at its start,
# blood at the mean of the half hours of a four-hour step in which the oracle takes it (`oracles/ward/measurement.py`)
COLLECTED_AT = {"vital": 1.0, "culture": 0.0}
BLOOD_COLLECTED_AT = 0.19
SOURCE_PREFIX = "source_"  # of static features that tell which set a stay is from; they follow the ward's own
STATIC_NAMES = (*(q.name for q in STATIC), *(f"complaint_{c}" for c in COMPLAINTS))


@dataclass(frozen=True, slots=True)
class Spec:
    """What is said of an inquiry before any value was seen."""

    name: str
    unit: str
    low: float  # bounds of the chart
    high: float
    typical: float  # shown while nothing was ever resulted
    normal: tuple[float, float] | None  # adult reference range
    labels: tuple[str, ...] = ()  # a label outcome's classes; empty: a number
    offset_h: float = 0.0  # usual hours from the step's start to the specimen's collection


@dataclass(frozen=True, slots=True)
class Item:
    """An inquiry, ready for the network."""

    name: str
    unit: str
    low: float
    high: float
    typical: float
    normal: tuple[float, float] | None
    labels: tuple[str, ...]
    offset_h: float
    shift: float | None  # g(x) = log(x + shift); None: g(x) = x
    mean: float  # of g(x) in training
    sd: float
    edges: tuple[float, ...]  # on the z scale, ascending; a label's are class index - 0.5
    whole: bool  # every bin holds one reported value: samples are rounded to whole numbers
    grid: float = 0.0  # step that most values are reported in, in the unit; 0: none

    def __post_init__(self) -> None:
        if not self.sd > 0:
            raise ValueError(f"item {self.name!r} has sd={self.sd}, which must be above 0")
        if not 2 <= len(self.edges) <= MOST_EDGES:
            raise ValueError(f"item {self.name!r} has {len(self.edges)} bin edges; 2 to {MOST_EDGES} are possible")


@dataclass(frozen=True, slots=True)
class Treatment:
    """An intervention."""

    name: str
    unit: str
    high: float  # largest amount of one step


@dataclass(frozen=True, slots=True)
class StaticFeature:
    """What is known of a patient from the start, a number or yes (1) and no (0), as training met it."""

    name: str
    mean: float
    sd: float
    low: float  # least and greatest met in training
    high: float

    def __post_init__(self) -> None:
        if not (abs(self.mean) < MOST and 0 < self.sd < MOST and -MOST < self.low <= self.high < MOST):
            raise ValueError(
                f"{self.name}: mean {self.mean:g}, sd {self.sd:g}, low {self.low:g} and high {self.high:g} must lie "
                f"within {MOST:g}, sd above 0, low not above high"
            )


@dataclass(frozen=True)
class Vocabulary:
    """All that a learned ward knows by name, in the order of its tensors' columns."""

    items: tuple[Item, ...]
    treatments: tuple[Treatment, ...]
    static: tuple[StaticFeature, ...]
    diagnoses: tuple[str, ...]
    hours_per_step: float

    def __post_init__(self) -> None:
        if not 0 < self.hours_per_step <= MOST_STEP_H:
            raise ValueError(f"hours_per_step={self.hours_per_step:g} must be above 0 h and at most a week, 168 h")

    @cached_property
    def bins(self) -> int:
        """Bins of the item that has most."""
        return max(len(item.edges) for item in self.items) - 1

    def to_json(self) -> dict:
        """What `from_json` reads."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_json(cls, plain: dict) -> Vocabulary:
        """Raises ConfigError (a ValueError): not a vocabulary of this version."""
        return from_json(cls, plain, "the checkpoint's vocabulary")

    def check(self, names: Sequence[str], treatments: Sequence[str], what: str) -> None:
        """Raises ValueError if the inquiries or interventions of `what` are not this vocabulary's, in this order."""
        for kind, mine, theirs in (
            ("inquiries", [i.name for i in self.items], list(names)),
            ("interventions", [t.name for t in self.treatments], list(treatments)),
        ):
            if mine != theirs:
                lack, more = [n for n in mine if n not in theirs], [n for n in theirs if n not in mine]
                order = " (the same names in another order)" if not lack and not more else ""
                raise ValueError(
                    f"the checkpoint was trained on another vocabulary: of its {len(mine)} {kind}, {what} lacks "
                    f"{lack[:5]} and adds {more[:5]}{order}. Use the version that made the weights, or train again"
                )

    # ---- tables for the network

    def edge_table(self) -> Tensor:
        """Bin edges [I, bins + 1] on the z scale; the last edge is repeated where an item has fewer bins."""
        width = self.bins + 1
        return torch.tensor([[*i.edges, *[i.edges[-1]] * (width - len(i.edges))] for i in self.items])

    def scale_table(self) -> Tensor:
        """[I, 4]: mean, sd, shift, and 1 where the logarithm is taken."""
        return torch.tensor([[i.mean, i.sd, i.shift or 0.0, float(i.shift is not None)] for i in self.items])

    def is_label(self) -> Tensor:
        """bool [I]: the outcome is one of the item's classes."""
        return torch.tensor([bool(i.labels) for i in self.items])

    def grids(self) -> Tensor:
        """[I] step of the reports, in the items' units; 0: none."""
        return torch.tensor([i.grid for i in self.items])

    def is_whole(self) -> Tensor:
        """bool [I]: values are whole numbers."""
        return torch.tensor([i.whole for i in self.items])


def to_z(value: Tensor, scale: Tensor) -> Tensor:
    """x -> z, with `scale` [..., 4] rows of `scale_table` that broadcast against `value`."""
    mean, sd, shift, logs = scale.unbind(-1)
    taken = torch.where(logs > 0.5, (value + shift).clamp_min(LEAST_LOGGED).log(), value)
    return (taken - mean) / sd


def from_z(z: Tensor, scale: Tensor) -> Tensor:
    """z -> x, the inverse of `to_z`; shapes as there."""
    mean, sd, shift, logs = scale.unbind(-1)
    raw = z * sd + mean
    return torch.where(logs > 0.5, raw.clamp_max(MOST_LOG).exp() - shift, raw)


def log_slope(value: Tensor, scale: Tensor) -> Tensor:
    """log(dz / dx) at x, by which a density on z becomes one on x; shapes as in `to_z`."""
    _, sd, shift, logs = scale.unbind(-1)
    return -sd.log() - torch.where(logs > 0.5, (value + shift).clamp_min(LEAST_LOGGED).log(), 0.0)


def build(
    specs: Sequence[Spec],
    treatments: Sequence[Treatment],
    static_names: Sequence[str],
    diagnoses: Sequence[str],
    shards: Sequence[Stays],
    hours_per_step: float,
    bins: int = 32,
) -> Vocabulary:
    """A vocabulary from training stays. Raises ValueError for an item without two different values."""
    items = []
    for place, spec in enumerate(specs):
        values = torch.cat([s.value[..., place][s.asked[..., place]] for s in shards]).double()
        items.append(_item(spec, values[~values.isnan()], bins))
    cloud = torch.cat([s.static for s in shards])
    static = []
    for place, name in enumerate(static_names):
        column = cloud[:, place]
        column = column[~column.isnan()]
        if not len(column):
            column = torch.zeros(1)
        sd = float(column.std(unbiased=False)) or 1.0
        static.append(StaticFeature(name, float(column.mean()), sd, float(column.amin()), float(column.amax())))
    return Vocabulary(tuple(items), tuple(treatments), tuple(static), tuple(diagnoses), float(hours_per_step))


def _item(spec: Spec, values: Tensor, bins: int) -> Item:
    common = dataclasses.asdict(spec)
    if spec.labels:
        edges = tuple(i - 0.5 for i in range(len(spec.labels) + 1))
        return Item(**common, shift=None, mean=0.0, sd=1.0, edges=edges, whole=False)
    if len(values) < 2 or float(values.amin()) == float(values.amax()):
        raise ValueError(f"item {spec.name!r} has {len(values)} training values, all equal: leave it out or add stays")
    values = values[torch.randperm(len(values), generator=torch.Generator().manual_seed(0))[:SAMPLE]]
    least, most, grid = float(values.amin()), float(values.amax()), report_grid(values)
    shift = _shift(spec, values)
    raw = _raw_edges(values, grid, bins)
    if shift is not None:
        raw = raw.clamp_min((least + shift) * 0.5 - shift)
    taken = values if shift is None else (values + shift).log()
    mean, sd = float(taken.mean()), float(taken.std())
    z = ((raw if shift is None else (raw + shift).log()) - mean) / sd
    edges = tuple(float(torch.tensor(e, dtype=torch.float32)) for e in z.tolist())
    whole = grid == 1.0 and most - least + 1 <= bins
    mostly = report_grid(values, MOSTLY)
    return Item(**common, shift=shift, mean=mean, sd=sd, edges=edges, whole=whole, grid=mostly)


def _shift(spec: Spec, values: Tensor) -> float | None:
    """What is added before the logarithm of a skewed item; None for others."""
    least = float(values.amin())
    p1, p50, p99 = (float(x) for x in torch.quantile(values, torch.tensor([0.01, 0.5, 0.99], dtype=values.dtype)))
    if least < 0 or p99 - p50 <= SKEWED * (p50 - p1):
        return None
    return 0.0 if least > 0 and spec.low > 0 else max(LEAST_SHIFT, SHIFT_SHARE * p50)


def _raw_edges(values: Tensor, grid: float, bins: int) -> Tensor:
    """Edges of up to `bins` bins in the values' unit, ascending, halfway between points of the grid (0: none)."""
    least, most = float(values.amin()), float(values.amax())
    middle = torch.linspace(_TAIL[-1], 1 - _TAIL[-1], bins - 2 * (len(_TAIL) - 1) + 1, dtype=torch.float64).tolist()
    levels = sorted({*_TAIL, *middle, *(1 - p for p in _TAIL)})
    inner = torch.quantile(values, torch.tensor(levels, dtype=values.dtype))[1:-1]
    inner = torch.unique(((inner / grid).floor() + 0.5) * grid if grid else inner)
    ends = (least - grid / 2, most + grid / 2) if grid else (least - HAIR * abs(least), most + HAIR * abs(most))
    room = grid / 4 if grid else HAIR * (most - least)  # an end met again by rounding is no edge of its own
    inner = inner[(inner > ends[0] + room) & (inner < ends[1] - room)]
    return torch.cat([torch.tensor([ends[0]]).double(), inner, torch.tensor([ends[1]]).double()])


def report_grid(values: Tensor, share: float = NEARLY_ALL) -> float:
    """The widest step that more than this share of the values are multiples of; 0 if there is none."""
    for step in GRIDS:
        off = (values / step - (values / step).round()).abs() * step
        if float((off < ON_GRID * max(1.0, step)).double().mean()) > share:
            return step
    return 0.0


def collection_share(kind: str) -> float:
    """Usual time from a step's start to the collection of an inquiry of this kind, as a share of the step."""
    return COLLECTED_AT.get(kind, BLOOD_COLLECTED_AT)


def ward_specs(hours_per_step: float = 4.0) -> tuple[Spec, ...]:
    """The inquiries of `ward`; cultures are labels."""
    return tuple(
        Spec(
            name=q.name,
            unit=q.unit,
            low=float(q.low),
            high=float(q.high),
            typical=float(q.typical),
            normal=(float(q.normal[0]), float(q.normal[1])),
            labels=ORGANISMS if q.kind == "culture" else (),
            offset_h=collection_share(q.kind) * hours_per_step,
        )
        for q in INQUIRIES
    )


def from_ward(shards: Sequence[Stays], hours_per_step: float = 4.0, bins: int = 32) -> Vocabulary:
    """The vocabulary of the ward worlds, with bins from these training stays."""
    treatments = tuple(Treatment(q.name, q.unit, float(q.high)) for q in INTERVENTIONS)
    return build(ward_specs(hours_per_step), treatments, STATIC_NAMES, DISEASES, shards, hours_per_step, bins)
