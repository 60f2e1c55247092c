"""How a summary is worded: what a style calls each condition, result and drug, and the draws that choose among them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from torch import Tensor

from world_models import keys
from world_models.data.ehr.context.schema import StatedDiagnosis, StaticContext
from world_models.ehr_world.ward_summaries.facts import Condition, StayFacts

__all__ = ["Dice", "Named", "Style", "Vocabulary", "misspelt", "named", "truth_of"]

T = TypeVar("T")
MISSPELT = 0.03  # share of diagnoses (k)
SHORTEST_MISSPELT = 7  # letters; an abbreviation is not misspelt

# condition -> terms of the context's schema; what is not here has none
_TERMS: dict[str, tuple[str, ...]] = {
    "sepsis": ("sepsis",),
    "septic_shock": ("sepsis",),
    "pneumonia": ("pneumonia",),
    "diabetic_ketoacidosis": ("diabetic_ketoacidosis", "diabetes"),
    "heart_failure": ("heart_failure",),
    "gi_bleed": ("gi_bleed",),
    "acute_kidney_injury": ("acute_kidney_injury",),
    "chronic_kidney_disease": ("chronic_kidney_disease",),
    "diabetes": ("diabetes",),
    "chronic_heart_failure": ("chronic_heart_failure",),
}


class Dice:
    """One patient's draws, functions of the key and of what is drawn for."""

    def __init__(self, key: Tensor, purpose: str) -> None:
        self._key, self._purpose = key, purpose

    def share(self, what: str) -> float:
        """Uniform on (0, 1)."""
        return float(keys.uniform(self._key, 0, f"summary/{self._purpose}/{what}"))

    def chance(self, probability: float, what: str) -> bool:
        """True with this probability."""
        return self.share(what) < probability

    def pick(self, options: Sequence[T], what: str) -> T:
        """One of the options, each as likely."""
        return options[int(self.share(what) * len(options))]


@dataclass(frozen=True)
class Vocabulary:
    """The words of a style. Formats of results hold `{}` once, for the number."""

    conditions: Mapping[str, tuple[str, ...]]  # of facts.CONDITIONS, and "heart_failure_on_chronic"
    results: Mapping[str, tuple[str, ...]]  # item -> formats
    allergens: Mapping[str, tuple[str, ...]]
    treatments: Mapping[str, str]  # intervention -> what is said of it; others are not mentioned
    family: tuple[str, ...]  # sentences about relatives: distractors
    past: tuple[str, ...]  # what is long over: distractors
    joined: tuple[str, ...] = (" and ",)  # between two findings


class Named(NamedTuple):
    """A condition as a summary writes it."""

    condition: Condition
    name: str
    reason: str


@dataclass(frozen=True)
class Style:
    """A way to write summaries: its words and its form."""

    name: str
    words: Vocabulary
    write: Callable[[StayFacts, Sequence[Named], Sequence[str], Vocabulary, Dice], str]
    held_out: bool  # never looked at when rules or prompts were written


_DECIMALS = {"ph": 2, "creatinine_mg_dl": 1, "lactate_mmol_l": 1, "temperature_c": 1, "haemoglobin_g_dl": 1}
_DECIMALS |= {"potassium_mmol_l": 1, "phosphate_mg_dl": 1, "white_cells_k_ul": 1}


def misspelt(name: str, at: float) -> str:
    """The name with two neighbouring letters of its longest word exchanged, where `at` in (0, 1) says."""
    word = max(name.split(), key=len)
    if len(word) < SHORTEST_MISSPELT:
        return name
    places = [
        i for i in range(1, len(word) - 2) if word[i].isalpha() and word[i + 1].isalpha() and word[i] != word[i + 1]
    ]
    if not places:
        return name
    i = places[int(at * len(places))]
    return name.replace(word, word[:i] + word[i + 1] + word[i] + word[i + 2 :], 1)


def named(facts: StayFacts, words: Vocabulary, dice: Dice) -> list[Named]:
    """The conditions of a stay in the style's words, the primary one first."""
    chronic = any(c.name == "chronic_heart_failure" for c in facts.secondary)
    made = []
    for condition in (facts.primary, *facts.secondary):
        key = "heart_failure_on_chronic" if chronic and condition.name == "heart_failure" else condition.name
        name = dice.pick(words.conditions[key], f"name/{key}")
        if dice.chance(MISSPELT, f"misspelt/{key}"):
            name = misspelt(name, dice.share(f"where/{key}"))
        said = [
            dice.pick(words.results[item], f"result/{item}").format(f"{value:.{_DECIMALS.get(item, 0)}f}")
            for item, value in condition.findings
        ]
        made.append(Named(condition, name, dice.pick(words.joined, f"joined/{key}").join(said)))
    return made


def truth_of(facts: StayFacts, conditions: Sequence[Named], allergies: Sequence[str]) -> StaticContext:
    """The context that a perfect reader of the summary finds."""
    stated = []
    for condition, name, reason in conditions:
        terms = _TERMS.get(condition.name, ())
        stated.append(StatedDiagnosis(name, reason, None, terms))
    told = None if facts.allergies is None else tuple(allergies)
    sex = "female" if facts.female else "male"
    return StaticContext(float(facts.age_years), sex, told, stated[0], tuple(stated[1:]))
