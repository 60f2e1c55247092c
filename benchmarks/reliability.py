"""The campaign's tallies as a file of results, and its table in docs/reliability.md.

python -m tests.campaign all --out campaign.json   # runs it; `make campaign` in brief
python -m benchmarks.reliability campaign.json     # keeps what came of it
python -m benchmarks.reliability                   # writes the page anew from benchmarks/results/campaign.json
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common.results import RESULTS, ROOT, made_by, read_json, write_json
from world_models.files import write_text

__all__ = ["KEPT", "PAGE", "main", "page", "table"]

KEPT = RESULTS / "campaign.json"
PAGE = ROOT / "docs" / "reliability.md"
ASKED = {"mutate": 10_000, "kills": 200, "steps": 10_000_000, "faults": None}  # trials of a full run
WORDS = {"mutate": "damaged inputs", "kills": "kills", "steps": "steps", "faults": "promises"}
_BLOCK = re.compile(r"(<!-- campaign -->\n).*?(<!-- /campaign -->)", re.DOTALL)


def kept(told: Mapping[str, Any]) -> dict[str, Any]:
    """What stays of the tallies: counts, failures without their tracebacks, figures, time and processor."""
    found: dict[str, Any] = {}
    for name in ASKED:
        if name in told:
            tally = dict(told[name])
            tally["failures"] = [{**row, "what": row["what"].splitlines()[0][:200]} for row in tally["failures"]]
            found[name] = tally
    return found


def added(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Two runs of a campaign, of other seeds, as one."""
    counts = {kind: Counter(found) for kind, found in one["counts"].items()}
    for kind, found in other["counts"].items():
        counts[kind] = counts.get(kind, Counter()) + Counter(found)
    sums = {name: one[name] + other[name] for name in ("trials", "failed", "failures", "seconds")}
    return {**one, **sums, "counts": {kind: dict(sorted(found.items())) for kind, found in sorted(counts.items())}}


def table(told: Mapping[str, Any]) -> str:
    """The Markdown tables: a row a campaign, then a row a kind."""
    lines = ["| campaign | asked for | tried | failed | s | processor |", "|---|---|---|---|---|---|"]
    for name, tally in _tallies(told):
        asked = ASKED[name]
        wanted = "all" if asked is None else f"{asked:,}"
        where = f"{tally['seconds']:,.0f} | {tally['processor']}"
        lines.append(f"| {WORDS[name]} | {wanted} | {tally['trials']:,} | {tally['failed']} | {where} |")
    for name, tally in _tallies(told):
        lines += ["", f"| {WORDS[name]} | tried | outcomes |", "|---|---|---|"]
        for kind, counts in tally["counts"].items():
            outcomes = ", ".join(f"{outcome} {count:,}" for outcome, count in counts.items())
            growth = tally.get("figures", {}).get("growth", {}).get(kind)  # only of courses long enough to be judged
            outcomes += "" if growth is None else f"; memory {growth:+.2%}"
            lines.append(f"| {kind} | {sum(counts.values()):,} | {outcomes} |")
    return "\n".join(lines) + "\n"


def _tallies(told: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return [(name, told[name]) for name in ASKED if name in told]


def page(told: Mapping[str, Any], text: str) -> str:
    """The page's text with the table of these results in its place.

    Raises:
        ValueError: the page has no place for it.
    """
    if not _BLOCK.search(text):
        raise ValueError(f"{PAGE.name} has no <!-- campaign --> block; restore it")
    return _BLOCK.sub(lambda found: found[1] + table(told) + found[2], text)


def main(argv: Sequence[str] | None = None) -> int:
    """Keep tallies, if any are given, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability", description=__doc__)
    parser.add_argument("tallies", nargs="*", type=Path, help="JSON files that tests.campaign wrote with --out")
    given = parser.parse_args(argv)
    if given.tallies:
        told: dict[str, Any] = {}
        seeds: dict[str, Any] = {}
        for path in given.tallies:
            for name, tally in json.loads(path.read_text(encoding="utf-8")).items():
                told[name] = added(told[name], tally) if name in told else tally
                seeds[name] = f"{seeds[name]}, {tally['seed']}" if name in seeds else tally["seed"]
        arguments = [str(path.absolute()) for path in given.tallies]
        write_json(KEPT, kept(told), made_by("benchmarks.reliability", arguments, seeds))
    write_text(PAGE, page(read_json(KEPT), PAGE.read_text(encoding="utf-8")))
    print(PAGE.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
