"""A stay as code and quantile tokens, after ETHOS (Renc et al. 2024, doi 10.1038/s41746-024-01235-0): the baseline.

    <start> fact:sex=female fact:age_years q6  gap:1  give:norepinephrine rate:q3  ask:heart_rate_bpm q8
    ask:status label:stays  gap:2 ...

One token says how many steps passed, one names an order, one gives the amount or the outcome as a quantile of the
training values of that item (deciles by default), or as a label. Unlike in ETHOS infusions keep their rate, the orders
of a step stand before its outcomes, and outcomes are asked for, not guessed. Lost are the place within a quantile,
duration and route of an intervention, and a gap between two of GAPS (the next smaller one is written); so
`codec.narrative(tokens)` gives a stay that encodes to the same tokens, not the stay itself.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from world_models.data.ehr.episode import at_float32
from world_models.ehr_world.causal_lm.codec import encode, write_codec
from world_models.ehr_world.causal_lm.grammar import DONE, finish
from world_models.ehr_world.causal_lm.text import AskedItem, Given, Narrative, NarrativeError, NarrativeStep, usual_unit

__all__ = ["GAPS", "QuantileCodec"]

GAPS = (1, 2, 3, 4, 6, 8, 12, 18, 24, 36, 48, 72, 96, 168, 336, 720)  # steps since the step before
OTHER = "?"  # what training never met
_AMOUNTS = ("dose", "rate")


class _Bins:
    """Quantile bins of one item's values: bin i holds [edges[i - 1], edges[i]); none is empty."""

    def __init__(self, edges: Sequence[float], points: Sequence[Sequence[float]]) -> None:
        self.edges, self.points = list(edges), [list(p) for p in points]  # points: least, median, largest of each bin

    @classmethod
    def fit(cls, values: Sequence[float], n_bins: int) -> _Bins:
        x = np.sort(np.asarray(values, dtype=np.float64))
        distinct = np.unique(x)
        if len(distinct) <= n_bins:
            edges = distinct[1:]
        else:
            edges = np.unique(np.quantile(x, np.arange(1, n_bins) / n_bins))
        at = np.searchsorted(edges, x, side="right")
        used = np.unique(at)
        edges = edges[used[1:] - 1]
        at = np.searchsorted(edges, x, side="right")
        groups = [x[at == i] for i in range(len(edges) + 1)]
        # the lower median: a value that was met, so that a count stays a count
        return cls(edges.tolist(), [[float(g[0]), float(g[(len(g) - 1) // 2]), float(g[-1])] for g in groups])

    def index(self, value: float) -> int:
        return bisect.bisect_right(self.edges, value)

    def value(self, index: int, where: float) -> float:
        """At 0 the least, at 0.5 the median, at 1 the largest value of the bin, straight lines between."""
        low, middle, high = self.points[min(index, len(self.points) - 1)]
        if where == 0.5:
            return middle
        a, b, share = (low, middle, 2 * where) if where < 0.5 else (middle, high, 2 * where - 1)
        return min(max(at_float32(a + (b - a) * share), low), high)


class _Met(NamedTuple):
    """What training stays hold."""

    values: dict[str, list[float]]  # by the keys of `QuantileCodec.bins`
    labels: dict[str, Counter[str]]  # of each item's outcomes
    plain: Counter[str]  # tokens that are their own names

    def take_in(self, narrative: Narrative) -> None:
        """One stay more."""
        for name, value in narrative.facts:
            if isinstance(value, str):
                self.plain[f"fact:{name}={value}"] += 1
            else:
                self.values.setdefault(f"fact {name}", []).append(value)
        self.plain.update(f"icd:{d.version}:{d.code[:3]}" for d in narrative.diagnoses)
        for step in narrative.steps:
            for given in step.given:
                self.plain[f"give:{given.item}"] += 1
                for key, amount in _amounts(given):
                    self.values.setdefault(key, []).append(amount)
            for asked in step.asked:
                if asked.value is not None:
                    self.values.setdefault(f"value {asked.item}", []).append(asked.value)
                elif asked.label is not None:
                    self.labels.setdefault(asked.item, Counter())[asked.label] += 1


class QuantileCodec:
    """Made by `fit`, or from its saved dict. See `codec.NarrativeCodec` for the verbs."""

    longest = 1

    def __init__(
        self, n_bins: int, bins: dict[str, _Bins], names: Sequence[str], outcomes: dict[str, list[str]]
    ) -> None:
        """bins: 'value item', 'dose item unit', 'rate item unit', 'fact name' -> bins. outcomes: item -> its tokens."""
        self.n_bins, self.bins, self.names, self.outcomes = n_bins, bins, list(names), outcomes
        self.ids = {name: i for i, name in enumerate(self.names)}
        self.size, self.pad = len(self.names), 0
        rows: list[dict[int, int]] = [{}]
        starts = {}
        for item, tokens in outcomes.items():
            starts[item] = len(rows)
            rows.append({self.ids[token]: DONE for token in tokens})
        self.automaton = finish(rows, self.size, starts)

    @classmethod
    def fit(cls, narratives: Iterable[Narrative], n_bins: int = 10) -> QuantileCodec:
        """Vocabulary and quantiles of the training stays.

        Raises:
            ValueError: fewer than two bins. NarrativeError: no outcome in any stay.
        """
        if n_bins < 2:
            raise ValueError(f"n_bins={n_bins} must be at least 2; ETHOS takes 10")
        met = _Met({}, {}, Counter())
        for narrative in narratives:
            met.take_in(narrative)
        bins = {key: _Bins.fit(found, n_bins) for key, found in sorted(met.values.items())}
        outcomes: dict[str, list[str]] = {}
        for key, item_bins in bins.items():
            if key.startswith("value "):
                outcomes[key[6:]] = [f"q{i}" for i in range(len(item_bins.points))]
        for item, seen in sorted(met.labels.items()):
            outcomes.setdefault(item, []).extend(f"label:{label}" for label in sorted(seen))
        if not outcomes:
            raise NarrativeError("the training stays hold no outcome; give stays with inquiries")
        names = ["<pad>", "<start>", f"fact:{OTHER}", f"icd:{OTHER}", f"give:{OTHER}", f"label:{OTHER}"]
        names += [f"{kind}q{i}" for kind in ("", "dose:", "rate:") for i in range(n_bins)]
        names += [f"gap:{gap}" for gap in GAPS] + sorted(met.plain)
        names += [f"fact:{key[5:]}" for key in bins if key.startswith("fact ")]
        names += [f"ask:{item}" for item in sorted(outcomes)]
        names += sorted({f"label:{label}" for seen in met.labels.values() for label in seen} - set(names))
        return cls(n_bins, bins, list(dict.fromkeys(names)), outcomes)

    def known(self, narrative: Narrative) -> tuple[Narrative, int]:
        """The narrative without inquiries of items that training never met, and how many were left out."""
        steps = [s._replace(asked=tuple(a for a in s.asked if a.item in self.outcomes)) for s in narrative.steps]
        lost = sum(len(s.asked) - len(k.asked) for s, k in zip(narrative.steps, steps, strict=True))
        return narrative._replace(steps=tuple(steps)), lost

    def _token(self, name: str) -> int:
        head = name.partition(":")[0]
        return self.ids[name] if name in self.ids else self.ids[f"{head}:{OTHER}"]

    def context(self, narrative: Narrative) -> list[int]:
        """The start, then a fact's name and quantile, or both in one token; then diagnoses, three characters each."""
        tokens = [self.ids["<start>"]]
        for name, value in narrative.facts:
            key = f"fact {name}"
            if isinstance(value, str) or key not in self.bins:
                tokens.append(self._token(f"fact:{name}={value}"))
            else:
                tokens += [self.ids[f"fact:{name}"], self.ids[f"q{self.bins[key].index(value)}"]]
        return tokens + [self._token(f"icd:{d.version}:{d.code[:3]}") for d in narrative.diagnoses]

    def orders(self, step: NarrativeStep, before: int, hours_per_step: float) -> list[int]:
        """The gap since the step `before`, then interventions with amounts; inquiries stand beside their outcomes.

        Raises:
            NarrativeError: the step is not after `before`.
        """
        gap = step.number - before
        if gap < 1:
            raise NarrativeError(f"step {step.number} stands after step {before}: time runs backwards; sort the steps")
        tokens = [self.ids[f"gap:{GAPS[bisect.bisect_right(GAPS, gap) - 1]}"]]
        for given in step.given:
            tokens.append(self._token(f"give:{given.item}"))
            for key, amount in _amounts(given):
                if key in self.bins:
                    tokens.append(self.ids[f"{key[:4]}:q{self.bins[key].index(amount)}"])
        return tokens

    def ask(self, item: str) -> list[int]:
        """Raises NarrativeError for an item that training never met; `known` leaves those out."""
        if item not in self.outcomes:
            near = ", ".join([i for i in self.outcomes if i[:3] == item[:3]] or list(self.outcomes)[:6])
            raise NarrativeError(
                f"no inquiry {item!r} in this vocabulary (near: {near}); leave it out with codec.known()"
            )
        return [self.ids[f"ask:{item}"]]

    def outcome(self, asked: AskedItem) -> list[int]:
        """One token: a label, or the quantile of a value. Raises NarrativeError: there is no outcome."""
        if asked.label is not None:
            return [self._token(f"label:{asked.label}")]
        if asked.value is None:
            raise NarrativeError(f"{asked.item} has no outcome yet")
        key = f"value {asked.item}"
        return [self.ids[f"q{self.bins[key].index(asked.value)}" if key in self.bins else f"label:{OTHER}"]]

    def kind(self, item: str) -> str:
        """The item itself: each has a start of its own. Raises NarrativeError as `ask` does."""
        self.ask(item)
        return item

    def decode(self, item: str, tokens: Sequence[int], where: float = 0.5) -> AskedItem:
        """The outcome of its token, a value from `where` (0 to 1) in its bin. Raises NarrativeError: no outcome."""
        name = self.names[tokens[0]]
        if name.startswith("label:"):
            return AskedItem(item, label=name[6:])
        if not name.startswith("q") or f"value {item}" not in self.bins:
            raise NarrativeError(f"token {name!r} is no outcome of {item!r}")
        return AskedItem(item, self.bins[f"value {item}"].value(int(name[1:]), where), None, usual_unit(item) or "")

    def narrative(self, tokens: Sequence[int], hours_per_step: float) -> Narrative:
        """The stay that tokens tell, medians for quantiles. Raises NarrativeError where they are no stay."""
        facts: list[tuple[str, float | str]] = []
        steps: list[NarrativeStep] = []
        index = -1
        names = [self.names[t] for t in tokens if t != self.pad]
        at = 1
        while at < len(names):
            head, _, rest = names[at].partition(":")
            at += 1
            following = names[at] if at < len(names) else ""
            if head == "gap":
                index += int(rest)
                steps.append(NarrativeStep(index))
            elif head == "fact" and f"fact {rest}" in self.bins:
                facts.append((rest, self.bins[f"fact {rest}"].value(int(following[1:]), 0.5)))
                at += 1
            elif head == "fact":
                name, _, value = rest.partition("=")
                facts.append((name, value))
            elif head == "ask" and steps and following:
                asked = self.decode(rest, [self.ids[following]])
                steps[-1] = steps[-1]._replace(asked=(*steps[-1].asked, asked))
                at += 1
            elif head == "give" and steps:
                given = Given(rest, "administration")
                while at < len(names) and names[at].partition(":")[0] in _AMOUNTS:
                    word, _, bin_name = names[at].partition(":")
                    given = self._with_amount(given, word, int(bin_name[1:]))
                    at += 1
                steps[-1] = steps[-1]._replace(given=(*steps[-1].given, given))
            elif head != "icd":
                raise NarrativeError(f"token {at - 1} is {names[at - 1]!r}; expected a fact, a gap or an order")
        return Narrative(tuple(facts), (), hours_per_step, tuple(steps))

    def _with_amount(self, given: Given, word: str, index: int) -> Given:
        """The intervention with the median of bin `index` of its "dose" or "rate"."""
        # of several units the first that has such a bin: it encodes to the same token
        start = f"{word} {given.item}\t"
        key = next(k for k, b in self.bins.items() if k.startswith(start) and len(b.points) > index)
        amount, unit = self.bins[key].value(index, 0.5), key.partition("\t")[2]
        return given._replace(dose=amount, unit=unit) if word == "dose" else given._replace(rate=amount, rate_unit=unit)

    def to_dict(self) -> dict:
        """What `from_dict` reads, fit for JSON."""
        bins = {key: [b.edges, b.points] for key, b in self.bins.items()}
        return {
            "codec": "quantile",
            "n_bins": self.n_bins,
            "names": self.names,
            "outcomes": self.outcomes,
            "bins": bins,
        }

    @classmethod
    def from_dict(cls, saved: dict) -> QuantileCodec:
        """Raises ValueError for a dict that is none of ours."""
        try:
            bins = {key: _Bins(*pair) for key, pair in saved["bins"].items()}
            return cls(saved["n_bins"], bins, saved["names"], saved["outcomes"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"the saved quantile codec is damaged ({error!r}); restore it or fit again") from None

    def save(self, folder: str | Path) -> None:
        """What `codecs.load_codec` reads."""
        write_codec(folder, self.to_dict())

    def encode(self, narrative: Narrative) -> list[int]:
        """All tokens of a stay."""
        return encode(self, narrative).ids


def _amounts(given: Given) -> list[tuple[str, float]]:
    """(key of the bins, amount) of a dose and a rate, where they are known. Bins are by item and unit."""
    both = (("dose", given.dose, given.unit), ("rate", given.rate, given.rate_unit))
    return [(f"{word} {given.item}\t{unit}", amount) for word, amount, unit in both if amount is not None]
