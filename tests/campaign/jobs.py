"""The jobs that are killed: how each is done, what must be whole after a kill, and what it must come to."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch

from agents import run_folder
from agents.board.board import open_board
from agents.board.cell import Rules, read_cell
from agents.board.page import board_page
from agents.board.run import run_groups
from agents.board.table import rows_of
from agents.offline import logged
from agents.offline.minari_form import as_logged, folder_of, write_minari
from agents.registry import entry
from clinenv.commands.main import main as clinenv_command
from tests.campaign import small
from tests.clinenv.records import write_record
from tests.data import small_hospital
from world_models import checkpoint, keys
from world_models.data.ecg import monolith_writer
from world_models.data.ecg.monolith import read_monolith
from world_models.data.ehr import pipeline
from world_models.data.ehr.context.context_file import read_contexts
from world_models.data.ehr.flow import Flow
from world_models.data.ehr.load import load_episodes
from world_models.data.ehr.meds.writer import read_episodes, write_episodes
from world_models.data.ehr.shards import Source
from world_models.files import write_text
from world_models.tensor_file import read_tensors
from world_models.training import Schedule, fit

__all__ = ["JOBS", "Job"]

MINARI = "clinenv/ECGDrug/mixed-v0"


@dataclass(frozen=True)
class Job:
    """One job. All functions take the folder that it writes to."""

    name: str
    run: Callable[[Path], Any]  # do it, or go on with it
    check: Callable[[Path], Any]  # read whatever stands under a final name; raises where that is torn
    result: Callable[[Path], Any]  # of a finished job, comparable by ==
    warm: Callable[[], Any] = lambda: None  # what is made once, before anything is forked
    there: Callable[[], bool] = lambda: True  # whether what it needs is installed

    @staticmethod
    def left(path: Path) -> bool:
        """Whether a file is one that only a write under way has."""
        return ".part" in path.name or ".next" in path.name


def digests(folder: Path, *patterns: str) -> dict[str, str]:
    """SHA-256 of files by their names."""
    found = sorted(path for pattern in patterns for path in folder.rglob(pattern) if path.is_file())
    assert found, f"nothing like {patterns} in {folder}"
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def if_there(path: Path, read: Callable[[Path], Any]) -> None:
    """Read a file unless it is absent."""
    if path.exists():
        read(path)


# ---- training


def train_line(folder: Path) -> None:
    """The shared loop of all worlds, on a straight line; then the world's folder."""
    torch.manual_seed(0)
    module = torch.nn.Linear(3, 1)

    def loss(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        x = keys.normal(keys.from_seed(step * 64, 64), 0, "x", (3,))
        return (module(x) - x.sum(-1, keepdim=True)).square().mean(), {}

    fit(module, loss, Schedule(12, warm_up=5, average=0.9, save_every_s=0.0), folder / "work", "line")
    checkpoint.save_checkpoint(folder / "world", module.state_dict(), {"kind": "line"}, "# A line\n")


def check_line(folder: Path) -> None:
    """Every safetensors file, and the world, if it is there."""
    for path in folder.rglob("*.safetensors"):
        read_tensors(path)
    if_there(folder / "world" / checkpoint.CONFIG, lambda path: checkpoint.load(path.parent))


def check_policy(folder: Path) -> None:
    """The policy and its checkpoint under their seals."""
    if_there(folder / run_folder.POLICY.json, lambda path: _opened(run_folder.POLICY, path.parent))
    if_there(
        folder / "checkpoint" / run_folder.CHECKPOINT.json, lambda path: _opened(run_folder.CHECKPOINT, path.parent)
    )


def _opened(form: Any, folder: Path) -> None:
    with form.opened(folder) as found:
        for name in form.tensors:
            found.tensors(name)


# ---- HDF5, MEDS, Minari


def write_growing_monolith(folder: Path) -> None:
    """With room for few rows at a time, so that it grows twice and is cut."""
    monolith_writer.GROW_ROWS = 16
    small.write_monolith(folder / "m.h5", 60)


@lru_cache(maxsize=1)
def hospital() -> Path:
    """Four invented patients as tables."""
    return small_hospital.write(small_hospital.tables(), Path(mkdtemp()))


@lru_cache(maxsize=1)
def stays() -> list[Any]:
    """Their stays."""
    return load_episodes(tables=hospital())[0]


@lru_cache(maxsize=1)
def many_stays() -> list[Any]:
    """Theirs a hundred times, as of other patients: enough to be killed while they are written."""
    return [
        replace(stay, subject_id=1000 * n + stay.subject_id, stay_id=stay.stay_id + 1000 * n)
        for n in range(100)
        for stay in stays()
    ]


def run_pipeline(folder: Path) -> None:
    """Tables to a dataset in two shards; what is there already is left."""
    if not (folder / "set" / "flow.json").exists():
        pipeline.run(Source(tables=str(hospital()), shards=2), folder / "set", shares=(0.5, 0.25, 0.25))


def check_pipeline(folder: Path) -> None:
    """Every file of stays, and the flow."""
    for path in (folder / "set" / "data").rglob("[!.]*.parquet"):
        read_episodes(path)
    if_there(folder / "set" / "flow.json", lambda path: Flow.read(path))


def write_log(folder: Path) -> None:
    """A log as HDF5."""
    logged.save(small.log(), folder / "log.h5")


def run_minari(folder: Path) -> None:
    """A log as a Minari data set."""
    if not folder_of(folder, MINARI).exists():
        write_minari(small.log(), folder, MINARI)


def check_minari(folder: Path) -> None:
    """The data set, if it is there, is the log."""
    import minari

    def read(path: Path) -> None:
        found = as_logged(minari.MinariDataset(path))
        assert torch.equal(found.reward, small.log().reward) and torch.equal(found.seed, small.log().seed)

    if_there(folder_of(folder, MINARI), read)


# ---- reports and the leaderboard


@lru_cache(maxsize=1)
def record() -> Path:
    """An ECG to report on."""
    return write_record(Path(mkdtemp()))


def run_report(folder: Path) -> None:
    """`clinenv simulate` with a page and its numbers."""
    asked = [
        "simulate",
        "--ecg",
        str(record()),
        "--age",
        "61",
        "--sex",
        "F",
        "--drug",
        "dofetilide",
        "--dose-ug",
        "500",
    ]
    asked += ["--world", "oracle", "--hours", "4", "--samples", "32"]
    out = ["--out", str(folder / "report.html"), "--json", str(folder / "numbers.json")]
    if clinenv_command(asked + out):
        raise RuntimeError("clinenv simulate failed")


def check_report(folder: Path) -> None:
    """Whole pages and numbers."""
    if_there(folder / "report.html", _page)
    if_there(folder / "numbers.json", lambda path: json.loads(path.read_text()))


def _page(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.rstrip().endswith("</html>"), f"{path} ends with {text[-40:]!r}"


RULES = Rules("", 4, 2, 10_000.0, quick=True)
STEPS = {"ECGDrug-v0": (2, 3)}


def _board(folder: Path) -> Any:
    agents = [entry(name) for name in ("nothing", "dofetilide label rule", "random")]
    return open_board(folder / "board", RULES, list(STEPS), STEPS, agents, salt="ab" * 16, seeds=1)


def run_board(folder: Path) -> None:
    """Three agents over two lengths, then the page."""
    board = _board(folder)
    for _ in run_groups(board.groups, board.rules, board.folder):
        pass
    cells, missing = board.finished()
    assert not missing, f"{len(missing)} cells are missing"
    write_text(folder / "board" / "page.html", board_page(rows_of(cells), [], "a command"))


def check_board(folder: Path) -> None:
    """Every cell under its seal, and the page."""
    for path in (folder / "board" / "cells").glob("[!.]*.json"):
        assert read_cell(path) is not None
    if_there(folder / "board" / "page.html", _page)


def earned(folder: Path) -> Any:
    """What the cells say that does not depend on the clock."""
    cells, _ = _board(folder).finished()
    told = [{name: cell[name] for name in ("cell", "status", "earned", "promised")} for cell in cells]
    return json.dumps(sorted(told, key=lambda row: str(row["cell"])), sort_keys=True)


JOBS = (
    Job("training a policy", lambda f: small.train_policy(f, 8, save_every_s=0.0), check_policy,
        lambda f: digests(f, run_folder.TENSORS, run_folder.POLICY.json)),
    Job("training a world", train_line, check_line, lambda f: digests(f / "world", "*")),
    Job("HDF5, row by row", write_growing_monolith, lambda f: if_there(f / "m.h5", read_monolith),
        lambda f: [value.nan_to_num().tolist() if isinstance(value, torch.Tensor) else value
                   for value in read_monolith(f / "m.h5")]),
    Job("HDF5 of a log", write_log, lambda f: if_there(f / "log.h5", logged.load),
        lambda f: logged.load(f / "log.h5").reward.tolist(), small.log),
    Job("MEDS pipeline", run_pipeline, check_pipeline, lambda f: digests(f / "set", "*.parquet", "flow.json"),
        hospital),
    Job("MEDS of stays", lambda f: write_episodes(many_stays(), f / "e.parquet"),
        lambda f: if_there(f / "e.parquet", read_episodes), lambda f: digests(f, "e.parquet"), many_stays),
    Job("contexts", lambda f: small.write_contexts(f / "c.jsonl", 200),
        lambda f: if_there(f / "c.jsonl", read_contexts), lambda f: digests(f, "c.jsonl")),
    Job("Minari", run_minari, check_minari, lambda f: check_minari(f) or folder_of(f, MINARI).exists(), small.log,
        lambda: importlib.util.find_spec("minari") is not None),
    Job("a report", run_report, check_report, lambda f: digests(f, "numbers.json", "report.html"), record),
    Job("the leaderboard", run_board, check_board, earned),
)  # fmt: skip
