"""The paper's tables 1 to 3 on oracle patients with real beats: `python -m benchmarks.ecg_drug.tables --table 1 2 3`.

Post-dose ECGs after one dose, half an hour to a day on (`world_models.ecg_wm.pairs`): all models learn from the same
training patients, choose on the same validation patients and are judged on test patients whom none has met.

1: error of latents, of beats on the canonical axis and in time, and of the measures. 2: accuracy and recall of QTc, PR
and Tpeak-Tend classes. 3: change of the risk through the frozen predictor. The paper's figures stand beside, marked:
they are of other patients, and nothing is compared with them.

Networks get `--budget` seconds of processor time each (their three short runs for the learning rate come on top and
are told), and where the validation curve still falls then, up to `--plateau` times as much in a second row. Training is
kept in `--work` and goes on there. Simulated patients throughout: none of it is clinical evidence.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.common.results import RESULTS, made_by, write_csv
from benchmarks.ecg_drug.rivals.frame import Predicted, Rival, given
from benchmarks.ecg_drug.rivals.language import LanguageRival, transformers_folder
from benchmarks.ecg_drug.rivals.paper import paper_rows
from benchmarks.ecg_drug.table_rivals import NAMES, Entry, entries, world_entry
from benchmarks.ecg_drug.table_scores import Encode, class_scores, error_scores, risk_scores
from world_models import catalog, keys
from world_models.command_line import folder, number, whole
from world_models.ecg_wm.pairs import SPLIT_SEED, Pairs, cached_pairs
from world_models.ecg_wm.risk.predictor import RiskPredictor
from world_models.ehr_world.causal_lm.prompt import STYLES
from world_models.protocol import Chart

__all__ = ["latents_by_components", "main", "predicted", "rows_of"]

TABLES = (1, 2, 3)
COMPONENTS = 24  # of the latent where no encoder is given
_AT_ONCE = 250  # patients sampled together
LANGUAGE_TOKENS = {"chat": 220, "continue": 110}  # of an answer: a table has some 90
_SAMPLE_SEED = 34_000_000_000


def predicted(rival: Rival, pairs: Pairs, samples: int) -> Predicted:
    """What a rival says of all these pairs."""
    key, parts = keys.from_seed(_SAMPLE_SEED, pairs.size), []
    for rows in torch.arange(pairs.size).split(_AT_ONCE):
        some = pairs.take(rows)
        parts.append(rival.sample(given(some), key=key[rows], samples=samples))
    chart = {n: torch.cat([p.chart[n] for p in parts], 1) for n in parts[0].chart}
    return Predicted(torch.cat([p.beat for p in parts], 1), chart)


def latents_by_components(pairs: Pairs) -> Encode:
    """An encoder by the first principal components of training beats, each over its spread: what stands for a latent
    where no model's is given."""
    beats = torch.cat([pairs.pre_beat, pairs.post_beat]).flatten(1)
    centre = beats.mean(0)
    with torch.random.fork_rng(devices=[]):
        _, size, axes = torch.svd_lowrank(beats - centre, COMPONENTS, niter=4)
    spread = size / (len(beats) - 1) ** 0.5

    def encode(beat: Tensor, chart: Chart) -> Tensor:
        return (beat.flatten(1) - centre) @ axes / spread.clamp_min(1e-6)

    return encode


def _latents_by_world(name: str) -> Encode:
    """The autoencoder's means of a learned ECG world."""
    world: Any = catalog.load(name)
    if not hasattr(world, "vae"):
        raise ValueError(f"--encoder {name}: this world has no autoencoder; name a learned ECG world, or leave it out")

    def encode(beat: Tensor, chart: Chart) -> Tensor:
        leads, seen = torch.ones(beat.shape[:2], dtype=torch.bool), torch.ones(len(beat), beat.shape[2]).bool()
        with torch.no_grad():
            return world.vae.encode(beat, leads, seen)[0]

    return encode


def rows_of(
    entry: Entry, tables: list[int], pairs: Pairs, samples: int, encode: Encode, risk: RiskPredictor
) -> dict[int, dict[str, Any]]:
    """A model's row in each table asked for."""
    found = predicted(entry.rival, pairs, samples)

    def event(chart: Chart) -> Tensor:
        with torch.no_grad():
            return risk(chart)["event"]

    said = dict(entry.told)
    if isinstance(entry.rival, LanguageRival):
        counts = entry.rival
        said |= {"asked": counts.asked, "unanswered": counts.unanswered, "failed": counts.failed}
    rows = {}
    for table in tables:
        if table == 1:
            scores = error_scores(found, pairs, encode)
        elif table == 2:
            scores = class_scores(found, pairs)
        else:
            scores = risk_scores(found, pairs, event)
        rows[table] = said | scores
    return rows


def _language(chosen: argparse.Namespace) -> Entry | None:
    """The language model asked for, if any."""
    from world_models.ehr_world.causal_lm import prompt
    from world_models.ehr_world.causal_lm.client import LLMClient

    if chosen.url is not None:
        backend = prompt.server(LLMClient(chosen.url, chosen.model), max_tokens=200)
        name = chosen.model
    elif chosen.transformers is not None:
        backend, name = transformers_folder(chosen.transformers), chosen.transformers.name
    elif chosen.gguf is not None:
        path = None if chosen.gguf == "smollm2" else Path(chosen.gguf)
        backend, name = (
            prompt.gguf(path, max_tokens=LANGUAGE_TOKENS[chosen.language_style], context=2048, threads=1),
            Path(chosen.gguf).stem,
        )
    else:
        return None
    return Entry(
        LanguageRival(backend, name, chosen.language_style), {"model": f"language model {name}", "at": "as it is"}
    )


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=int, nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--rivals", nargs="*", choices=NAMES, default=list(NAMES))
    parser.add_argument("--world", action="append", default=[], help="one more row: a catalogued world, or a folder")
    parser.add_argument("--encoder", default=None, help="learned ECG world whose autoencoder gives the latents")
    parser.add_argument("--risk", type=Path, default=None, help="folder of a risk predictor (default: the shipped one)")
    parser.add_argument("--budget", type=number(1, 1e6), default=600.0, help="processor seconds of each network")
    parser.add_argument("--plateau", type=number(1, 100), default=1.0, help="times the budget to go on at most")
    parser.add_argument("--train", type=whole(32), default=20_000)
    parser.add_argument("--validation", type=whole(16), default=512)
    parser.add_argument("--test", type=whole(16), default=1000)
    parser.add_argument("--samples", type=whole(1, 1000), default=16)
    parser.add_argument("--threads", type=whole(1, 64), default=1)
    parser.add_argument("--gguf", default=None, help="a language model: a GGUF file, or smollm2")
    parser.add_argument("--url", default=None, help="a language model: an OpenAI-compatible server; with --model")
    parser.add_argument("--model", default=None)
    parser.add_argument("--transformers", type=Path, default=None, help="a language model: its folder")
    parser.add_argument("--language-style", choices=STYLES, default="chat", help="continue: for models of plain text")
    parser.add_argument(
        "--language-patients", type=whole(2), default=100, help="of the test patients, the first so many"
    )
    parser.add_argument("--work", type=folder, default=Path("runs/ecg_tables"))
    parser.add_argument("--out", type=folder, default=RESULTS)
    chosen = parser.parse_args(argv)
    if (chosen.url is None) != (chosen.model is None):
        parser.error("--url and --model belong together: the server, and the model it serves")
    if sum(x is not None for x in (chosen.url, chosen.gguf, chosen.transformers)) > 1:
        parser.error("one language model a run: give --url, --gguf or --transformers")
    return chosen


def main(argv: list[str] | None = None) -> int:
    """Write the tables asked for and print them; 2 where something given cannot be used."""
    chosen = _arguments(argv)
    torch.set_num_threads(chosen.threads)
    try:  # what is given is looked at before anything is trained
        risk = RiskPredictor.load(chosen.risk)
        worlds = [world_entry(name) for name in chosen.world]
        own = None if chosen.encoder is None else _latents_by_world(chosen.encoder)
        language = _language(chosen)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    pairs = cached_pairs("train", chosen.train, chosen.work)
    validation = cached_pairs("validation", chosen.validation, chosen.work)
    test = cached_pairs("test", chosen.test, chosen.work)
    encode = latents_by_components(pairs) if own is None else own
    tables: dict[int, list[dict[str, Any]]] = {n: [] for n in chosen.table}

    def put(entry: Entry, judged: Pairs, samples: int) -> None:
        for table, row in rows_of(entry, chosen.table, judged, samples, encode, risk).items():
            tables[table].append(row)
            print(table, {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items() if "_low" not in k
                          and "_high" not in k}, flush=True)  # fmt: skip

    work = chosen.work / f"budget_{chosen.budget:g}_train_{chosen.train}"
    try:
        for entry in entries(chosen.rivals, pairs, validation, chosen.budget, chosen.plateau, work):
            put(entry, test, chosen.samples)
        for entry in worlds:
            put(entry, test, chosen.samples)
        if language is not None:
            few = test.take(slice(min(chosen.language_patients, test.size)))
            put(language, few, 1)
            for entry in entries(["persistence"], pairs, validation, chosen.budget, 1.0, work):
                put(entry._replace(told=entry.told | {"model": "persistence, the language model's patients"}), few, 1)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    seeds = {**SPLIT_SEED, "samples": _SAMPLE_SEED, "bootstrap": 0}
    made = made_by("benchmarks.ecg_drug.tables", argv, seeds, ["oracle", *chosen.world])
    for table, rows in tables.items():
        path = chosen.out / f"tables_ecg_wm_{table}.csv"
        write_csv(path, [*rows, *paper_rows(table)], made)
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
