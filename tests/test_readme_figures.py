"""Every figure of the README's results stands in a committed file.

A comment `<!-- figures: FILE ... -->` opens a block of the README and names the files of benchmarks/results (or, with
a folder before it, of world_models) that hold its figures; the block ends where the next one begins. A figure is found
if a number of these files gives it at its printed precision, as it is or as a percentage. A figure with an interval,
`a [b, c]`, must be found with its interval in one row. What is no measured figure stands in `NOT_MEASURED` with what it
is, and what derives from the files in `DERIVED` with how.
"""

from __future__ import annotations

import bisect
import csv
import json
import re
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
OPENS = re.compile(r"<!-- figures: (.*?) -->")
NUMBER = r"[-+]?\d[\d,]*(?:\.\d+)?"
WITH_INTERVAL = re.compile(rf"({NUMBER})(?: %)? \[({NUMBER}), ({NUMBER})\]")
# Neither names (`code`, links, Tpeak-Tend, S@25, SmolLM2-135M, 12-lead) nor arXiv, DOI and ICD-10 numbers are figures.
NO_FIGURE = re.compile(
    r"`[^`]*`|\]\([^)]*\)|\b[A-Za-z@]+[A-Za-z@-]*\d[\w.-]*|\b\d+(?:-[a-z]\w*|(?:th|st|nd)\b)|\b\d{4}-\d\d-\d\d\b"
)

# By the first file of the block: numbers that nothing measured, and what they are.
NOT_MEASURED: dict[str, dict[str, str]] = {
    "fidelity_ecg_wm_summary.csv": {
        "250": "patients, the command's --patients",
        "2": "hours",
        "12": "hours",
        "24": "hours",
    },
    "policies.csv": {"60": "ms, the task's limit of the rise"},
    "fidelity_ehr_world.csv": {"25 %": "what S@25 means"},
    "fidelity_ehr_world_death.csv": {"72": "hours", "4": "hours", "24": "hours"},
    "fidelity_ehr_records.csv": {"4": "hours", "24": "hours", "50": "per cent, a share of the learning curve"},
    "policies_ehr.csv": {"69": "switches of the action space"},
    "tables_ehr_world_table1.csv": {"240": "s, the command's --budget", "40": "s, the command's --records-budget"},
    "cardiac_jepa_table1.csv": {"1,900": "patients of fold 19, one of twenty"},
    "fidelity_cardiac_jepa.json": {"2021": "a year", "160": "records of LUDB, `records` of ludb_morphology.json"},
    "speed.json": {"10": "s, length of an ECG", "500": "Hz"},
}


def table(name: str) -> list[dict[str, str]]:
    with (ROOT / "benchmarks/results" / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def row(name: str, column: str, value: str) -> dict[str, float]:
    """The numbers of the row of a table whose column holds this."""
    found = next(r for r in table(name) if r[column] == value)
    return {k: float(v) for k, v in found.items() if re.fullmatch(r"[-+.\de]*\d", v or "")}


def effects(dial: str) -> list[dict[str, str]]:
    return [r for r in table("effects_ehr_world.csv") if r["primary"] == "1" and r["dial"] == dial]


def near_truth(dial: str) -> int:
    return sum(r["within_25_percent"] == "1" and r["same_sign"] == "1" for r in effects(dial))


def lower(name: str) -> int:
    return sum(float(r["pehe"]) < float(r[name]) for r in effects("0"))


def gain(term: str) -> float:
    mine, rule = (
        row("policies_ehr.csv", "policy", p) for p in ("PPO on the rule's knobs in ehr-ward-small", "clinician's rule")
    )
    return mine[f"term_{term}"] - rule[f"term_{term}"]


def beyond_blind(agent: str) -> float:
    blind = row("policies.csv", "agent", "dofetilide 0.25 mg every 12 h, without looking")
    return row("policies.csv", "agent", agent)["return"] - blind["return"]


def expected_over_seen(setting: str) -> float:
    found = row("fidelity_ehr_world_death.csv", "setting", setting)
    return found["mean_chance"] / found["base_rate"]


def published(method: str, protocol: str) -> float:
    rows = [r for r in table("cardiac_jepa_table1.csv") if r["data"].startswith("published")]
    return float(
        next(r for r in rows if r["method"].startswith(method) and r["protocol"] == protocol)["Triage (first ECG)"][:5]
    )


def onset_codes(least: float) -> int:
    return sum(
        float(r["onset_read"] or 0) > least for r in table("cardiac_jepa_actions_onset.csv") if len(r["code"]) == 3
    )


def minutes_an_arm() -> float:
    whole = next(r for r in table("cardiac_jepa_arms.csv") if r["method"] == "ours" and r["share"] == "1")
    return float(whole["pretrain_cpu_s"]) / 60


def memory_kib(world: str) -> float:
    speed = json.loads((ROOT / "benchmarks/results/speed.json").read_text(encoding="utf-8"))
    return speed["memory_mb_per_env_at_4096"][world]["extra"] * 1024


def judged_labels() -> int:
    found = json.loads((ROOT / "benchmarks/results/fidelity_cardiac_jepa.json").read_text(encoding="utf-8"))
    return sum("note" not in label for label in found["labels"].values())


# What the README says in these words -> the figure, computed from a committed table, and the digits it is said with.
DERIVED: dict[str, tuple[float, int]] = {
    "17 of\n28 orders": (near_truth("0"), 0),
    "28 orders within 25 % of": (len(effects("0")), 0),
    "right sign (18 when": (near_truth("1"), 0),
    "denies effects in 27": (lower("pehe_no_effect"), 0),
    "mean effect in 15": (lower("pehe_population_effect"), 0),
    "unit effects 0.42": (statistics.median(float(r["unit_correlation"]) for r in effects("0")), 2),
    "discharges +0.05": (gain("discharge"), 2),
    "stability +0.04": (gain("stability"), 2),
    "tests +0.02": (gain("tests"), 2),
    "learn 0.19": (beyond_blind("PPO in ecg-wm-small, mean of 2 seeds"), 2),
    "and 0.27 beyond": (beyond_blind("CEM in ecg-wm-small"), 2),
    "(1.3 to 1.4 times)": (expected_over_seen("death_72h_from_4h"), 1),
    "to 1.4 times)": (expected_over_seen("death_72h_from_24h"), 1),
    "lead on\nMIMIC-IV-ECG: 0.06": (published("Ours", "Linear probe") - published("Naive", "Linear probe"), 2),
    "over 90 % for ten\n  of": (10 if onset_codes(0.9) == 10 else -1, 0),
    "28 min of one core": (minutes_an_arm(), 0),
    "23 labels": (judged_labels(), 0),
    "One record is 1.25 %": (100 / 80, 2),
    "37 kB": (memory_kib("oracle"), 0),
    "| 36 kB": (memory_kib("ecg-wm-small"), 0),
}


class Block(NamedTuple):
    files: tuple[str, ...]
    text: str


def blocks() -> list[Block]:
    parts = OPENS.split(README)
    return [Block(tuple(files.split()), text) for files, text in zip(parts[1::2], parts[2::2], strict=True)]


def rows_of(name: str) -> list[list[float]]:
    """The numbers of a file, a row of it a list."""
    path = ROOT / ("world_models" if "/" in name else "benchmarks/results") / name
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        return list(json_rows(json.loads(text)))
    lines = [" ".join(row) for row in csv.reader(text.splitlines())] if path.suffix == ".csv" else text.splitlines()
    return [
        [float(n.replace(",", "")) for n in re.findall(r"(?<![\w.])[-+]?\d[\d,]*\.?\d*(?:e[-+]?\d+)?", line)]
        for line in lines
    ]


def json_rows(value: object) -> Iterator[list[float]]:
    """The numbers within each object or list, those of its objects and lists among them."""
    if isinstance(value, dict | list):
        inside = list(value.values() if isinstance(value, dict) else value)
        mine = [float(v) for v in inside if isinstance(v, int | float) and not isinstance(v, bool)]
        for part in inside:
            for row in json_rows(part):
                yield row
                mine += row
        yield mine


def value_and_half(figure: str) -> tuple[float, float]:
    """A printed number and half of its last digit: 117,000 is good to 500 either way, 0.766 to 0.0005."""
    plain = figure.replace(",", "").lstrip("+")
    decimals = len(plain.partition(".")[2])
    zeros = len(plain) - len(plain.rstrip("0")) if not decimals and abs(float(plain)) >= 100 else 0
    return float(plain), 0.5 * 10.0 ** (zeros - decimals)


def given_by(figure: str, numbers: list[float], share: bool, rounded: bool) -> bool:
    """Whether one of the sorted numbers rounds to the figure; a figure without a sign may be that of a negative number.

    Args:
        share: the figure is a percentage, which files give as a share of 1 or as it is.
        rounded: a whole number may be that of a fraction; else it is a count, which files give as it is.
    """
    value, half = value_and_half(figure)
    if half >= 0.5 and not (share or rounded):
        half = 0.0
    for sign in (1.0,) if figure[0] in "+-" else (1.0, -1.0):
        for scale in (1.0, 100.0) if share else (1.0,):
            at = bisect.bisect_left(numbers, (sign * value - half * 1.001) / scale - 1e-9)
            if at < len(numbers) and numbers[at] <= (sign * value + half * 1.001) / scale + 1e-9:
                return True
    return False


def lacking(block: Block) -> list[str]:
    """What the block says that its files do not."""
    rows = [sorted(row) for name in block.files for row in rows_of(name) if row]
    numbers = sorted(n for row in rows for n in row)
    known, rounded = NOT_MEASURED.get(block.files[0], {}), block.files[0].startswith("speed")
    text = block.text
    for words in DERIVED:
        text = text.replace(words, " ")
    text = NO_FIGURE.sub(" ", re.sub(r"(?m)^\|[-|]+\|$", "", text))
    missing = []
    for found in WITH_INTERVAL.finditer(text):
        if not any(all(given_by(f, row, "%" in found[0], rounded) for f in found.groups()) for row in rows):
            missing.append(found[0])
    text = WITH_INTERVAL.sub(" ", text)
    for found in re.finditer(rf"(?<![\w.])({NUMBER})(?![\w])( %)?", text):
        figure = found[1].rstrip(",")
        if (figure + (found[2] or "")) not in known and not given_by(figure, numbers, bool(found[2]), rounded):
            missing.append(f"{found[0]} in {text[max(0, found.start() - 40) : found.end() + 20]!r}")
    return missing


@pytest.mark.parametrize("block", blocks(), ids=lambda b: b.files[0])
def test_every_figure_stands_in_a_file_the_block_names(block: Block) -> None:
    assert not lacking(block)


@pytest.mark.parametrize("words", DERIVED)
def test_every_derived_figure_is_what_it_derives_from(words: str) -> None:
    assert README.count(words) == 1, "the README says it no longer, or otherwise"
    value, digits = DERIVED[words]
    said = re.search(NUMBER, words)[0] if "ten" not in words else "10"
    assert float(f"{value:.{digits}f}") == float(said)
