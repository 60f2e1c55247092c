"""The YAML header with which a card stands on the Hugging Face Hub, made of the card itself and of the config's kind.

Which data a model was made from, and under which licence it may be handed on, follow from what its card says; so a
header is made anew from a card at any time (`world_models.refresh_cards`), and training writes none by hand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

__all__ = ["DATASETS", "Dataset", "header", "header_of", "with_header", "without_header"]

LIBRARY = "clinenv"


class Dataset(NamedTuple):
    """Data that a card may name."""

    said: str  # how cards call it: a regular expression
    licence: str  # the Hub's identifier
    shared_alike: bool = False  # what is made from it has to stand under the same licence


DATASETS: dict[str, Dataset] = {  # by the name in the header
    "physionet-ecgrdvq": Dataset(r"ECGRDVQ", "odc-by"),
    "physionet-ludb": Dataset(r"LUDB", "odc-by"),
    "physionet-ptb-xl": Dataset(r"PTB-XL", "cc-by-4.0"),
    "physionet-challenge-2012": Dataset(r"Challenge 2012|challenge_2012", "odc-by"),
    "physionet-challenge-2019": Dataset(r"Challenge 2019|challenge_2019", "cc-by-4.0"),
    "physionet-challenge-2021": Dataset(r"Challenge 2021", "cc-by-4.0"),
    "physionet-eicu-crd-demo": Dataset(r"eICU demo|eICU Collaborative Research Database Demo", "odbl", True),
    "physionet-mimic-iv-demo": Dataset(r"MIMIC-IV Clinical Database Demo|MIMIC-IV demo", "odbl", True),
}
_TAGS = {  # by the config's kind
    "ecg-wm": ("world-model", "electrocardiogram", "pharmacology", "simulated-patients"),
    "ecg-risk": ("electrocardiogram", "pharmacology", "simulated-patients"),
    "ecg-inverse": ("inverse-dynamics", "electrocardiogram", "pharmacology", "simulated-patients"),
    "cardiac-jepa": ("world-model", "electrocardiogram", "jepa", "simulated-patients"),
    "ehr-set-outcome": ("world-model", "electronic-health-records"),
    "causal-lm-ward": ("world-model", "electronic-health-records", "simulated-patients"),
    "value-network": ("value-function",),
}
_METRICS = {  # how figures are called in cards -> name in the header
    "nll": r"\bnll\b|nats a",
    "interval-coverage": r"coverage",
    "roc_auc": r"AUROC",
    "mse": r"mean square",
    "share-within-25-percent": r"\bs25\b",
    "brier_score": r"Brier",
}
_TEST_ONLY = re.compile(r"the rest are test data[^.]*\.")  # data that a card names as not learned from
_OWN_RECORDS = r"made from records of your own"  # whose terms are not known here
_WORDS = {"yes", "no", "on", "off", "true", "false", "null", "y", "n"}  # which YAML takes for something else
_HEADER = re.compile(r"\A---\n.*?\n---\n+", re.DOTALL)


def without_header(card: str) -> str:
    """The card below its header, if it has one."""
    return _HEADER.sub("", card, count=1)


def header_of(card: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The header as plain JSON values: license, library_name, tags, datasets, metrics.

    Args:
        card: Markdown, with or without a header.
        config: of the folder; "kind" says what the model is.
    """
    text = _TEST_ONLY.sub("", without_header(card))
    kind = str(config.get("kind", ""))
    datasets = [name for name, known in DATASETS.items() if re.search(known.said, text)]
    alike = sorted({DATASETS[name].licence for name in datasets if DATASETS[name].shared_alike})
    measured = [name for name, said in _METRICS.items() if re.search(said, text)]
    found: dict[str, Any] = {
        "license": "other" if re.search(_OWN_RECORDS, text) else alike[0] if alike else "apache-2.0",
        "library_name": LIBRARY,
        "tags": [*_TAGS.get(kind, ()), "reinforcement-learning", "not-for-clinical-use"],
    }
    found |= {"datasets": datasets} if datasets else {}
    return found | ({"metrics": measured} if measured else {})


def header(values: Mapping[str, Any]) -> str:
    """Plain values, and lists of them, as the YAML block before a Markdown text. Strings are quoted as in JSON, which
    YAML reads, too."""
    return "---\n" + "".join(f"{line}\n" for name, value in values.items() for line in _lines(name, value)) + "---\n\n"


def _lines(name: str, value: Any) -> Iterable[str]:
    if not isinstance(value, list | tuple):
        return [f"{name}: {_scalar(value)}"]
    return [f"{name}:", *(f"- {_scalar(one)}" for one in value)]


def _scalar(value: Any) -> str:
    plain = isinstance(value, str) and re.fullmatch(r"[A-Za-z][\w.-]*", value) and value.lower() not in _WORDS
    return value if plain else json.dumps(value, ensure_ascii=False)


def with_header(card: str, config: Mapping[str, Any]) -> str:
    """The card under the header that belongs to it, in the place of the one it has."""
    return header(header_of(card, config)) + without_header(card)
