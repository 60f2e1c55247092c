"""The page without a server, as a folder that any web server can give out."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clinenv.play import course
from clinenv.play.drug_game import numbers
from clinenv.play.game import Game, controls
from clinenv.play.games import ORDER_NAMES, default_world
from clinenv.play.page import ASSETS, index, setting
from clinenv.play.session import Session
from clinenv.play.static import equality, patients, runtime
from clinenv.play.static.networks import Named, StepOfGame, drawing, drawn, named
from clinenv.play.static.onnx_files import loaded, write
from clinenv.rendering import ecg_paper
from world_models.ecg.t_synthesis import QUICK
from world_models.ecg_wm.recorded import INTERVALS
from world_models.ecg_wm.t_measures import T_MEASURES

__all__ = ["MOST_BYTES", "PLAYABLE", "PageError", "build", "networks_of", "write_networks"]

PLAYABLE = ("ECGDrug-v0",)
MOST_BYTES = 30_000_000  # of the whole folder
PATIENTS_EACH = 4  # of every cohort
OWN_ASSETS = Path(__file__).parent / "assets"
# The page runs WebAssembly and loads nothing from elsewhere; a host of files sends no such header.
_HEAD = (
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'self'; script-src 'self' "
    "'wasm-unsafe-eval'; img-src 'self' data:; base-uri 'none'; form-action 'none'\">\n"
)
_NOTE = (
    "This page runs without a server: the learned world computes in your browser, and the oracle is not in it. What "
    "the oracle gave each patient under some plans was computed beforehand and stands with the patient."
)


class PageError(ValueError):
    """The page cannot be made; one sentence with the remedy."""


def build(game: Game, folder: Path, package: str | Path | None = None, each: int = PATIENTS_EACH) -> tuple[int, Any]:
    """Make the folder, whole or not at all.

    Args:
        package: onnxruntime-web's npm package as a file; None: from the registry.
        each: patients of every cohort.

    Returns:
        Its size in bytes, and the `equality.Differences` of an episode between its networks and the learned world.

    Raises:
        PageError: the id has no such page, the folder is there, the networks differ from the world by more than
            `equality.TOLERANCE`, or the page is larger than MOST_BYTES.
        RuntimeMissing (a ValueError): see `runtime.package_bytes`.
        ImportError: onnx or onnxruntime is missing.
    """
    import onnx  # noqa: F401
    import onnxruntime  # noqa: F401

    if game.id not in PLAYABLE:
        raise PageError(f"{game.id} has no page without a server; there is one of {', '.join(PLAYABLE)}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise PageError(f"{folder} is there already; give a new folder, or empty it")
    files = runtime.files_of(runtime.package_bytes(package))
    with _whole(folder) as part:
        for name, content in files.items():
            (part / "assets" / name).write_bytes(content)
        for source in (*ASSETS.iterdir(), *OWN_ASSETS.iterdir()):  # its own api.js in the place of the served one
            if source.suffix in (".js", ".css"):
                shutil.copyfile(source, part / "assets" / source.name)
        (part / "index.html").write_text(index(game, "assets", _HEAD), encoding="utf-8")
        found = _write_world(game, part / "assets" / "world", each)
        size = sum(file.stat().st_size for file in part.rglob("*") if file.is_file())
        if size > MOST_BYTES:
            raise PageError(f"the page would have {size:,} bytes, and {MOST_BYTES:,} are the most; take fewer patients")
    return size, found


def networks_of(session: Session) -> tuple[StepOfGame, dict[str, tuple[Any, dict[str, Any]]]]:
    """The step, and every network with arguments to trace it by, of the session's learned world and patient."""
    episodes, now = session.episodes["learned"], session.branches[0].moments[0]["learned"].running
    step = StepOfGame(session.game, episodes.simulator, numbers, now.state).eval()
    dose = torch.zeros(1, len(episodes.simulator.world.orders))
    found: dict[str, tuple[Any, dict[str, Any]]] = {
        "step": (step, {"state": patients.kept_state(now.state), "dose_mg": dose})
    }
    parts = drawing(step.world)

    def run(name: str, held: Named) -> Named:
        arguments = {
            argument: {n: x for n, x in held.items() if n.startswith(f"{argument}.")} or held[argument]
            for argument in inspect.signature(parts[name].forward).parameters
        }
        found[name] = (parts[name], arguments)
        return parts[name](**arguments)

    with torch.no_grad():
        drawn(run, named(now.state), now.chart, all_parts=True)
    return step, found


def write_networks(session: Session, folder: Path) -> tuple[StepOfGame, Callable[[str, Named], Named]]:
    """The networks as ONNX files, and the files as a function of name and inputs."""
    step, networks = networks_of(session)
    for name, (network, arguments) in networks.items():
        write(network, arguments, folder / f"{name}.onnx")
    opened = {name: loaded(folder / f"{name}.onnx") for name in networks}
    return step, lambda name, tensors: opened[name](tensors)


def _write_world(game: Game, folder: Path, each: int) -> equality.Differences:
    """The networks, the patients, and what the scripts are told of them."""
    world = default_world(game.id)
    some = patients.admitted(game, world, tuple(game.cohorts), each)
    session = some[0].session
    step, run = write_networks(session, folder)
    found = equality.played(session, step, run, menu=(4, 0, 0, 1, 0, 0))
    if not found.within:
        raise PageError(f"the ONNX files differ from {world} by more than {equality.TOLERANCE}: {found}; report this")
    told, place = [], 0
    with (folder / "patients.bin").open("wb") as file:
        for one, plans in zip(some, patients.tried(some), strict=True):
            told.append({**one.told, "plans": plans, "offset": place})
            place += file.write(patients.packed(one.state))
    kinds = {torch.float32: "float32", torch.int64: "int64", torch.bool: "bool"}
    page = {
        **_told_of(session),
        "state": [
            {"name": name, "type": kinds[value.dtype], "shape": list(value.shape)}
            for name, value in some[0].state.items()
        ],
        "drawing": {"intervals": INTERVALS, "t_wave": T_MEASURES, "rounds": QUICK[0], "enough": QUICK[1]},
        "sheet": _sheet(),
        "patients": told,
    }
    page["setting"] |= {"most_seed": each, "note": _NOTE}
    (folder / "world.json").write_text(json.dumps(page, allow_nan=False, separators=(",", ":")), encoding="utf-8")
    return found


def _told_of(session: Session) -> dict[str, Any]:
    """What is fixed about id and world, as JSON values."""
    game, episodes = session.game, session.episodes["learned"]
    simulator, now = episodes.simulator, session.branches[0].moments[0]["learned"].running
    task = simulator.task
    orders = simulator.world.orders
    table = task.actions.table(orders)  # type: ignore[union-attr]
    nothing = torch.zeros(1, len(orders))
    return {
        "setting": setting(game, controls(task, orders, ORDER_NAMES), (simulator.world.name,)),
        "about": course.about(episodes),
        "menu_mg": table.tolist(),
        "given": [course.in_words(episodes, amounts) for amounts in table.tolist()],
        "terms": list(task.reward(now.chart, nothing, now.chart)),
        "costs": list(task.cost_parts(now.chart, nothing, now.chart)),
    }


def _sheet() -> dict[str, Any]:
    """The empty ECG paper as an SVG to be filled in, and where the traces go."""
    empty = np.full((12, 5000), np.nan)
    svg = ecg_paper.svg_paper(empty, 500.0, "{{TITLE}}", "{{PREFIX}}")
    svg, filled = re.subn(r'(<path transform="scale\(\.01\)" d="[^"]*)', r"\1{{TRACES}}", svg)
    assert filled == 1
    return {
        "svg": svg, "rate_hz": 500.0, "samples": empty.shape[1], "left_mm": ecg_paper.LEFT,
        "mm_per_s": ecg_paper.MM_PER_SECOND, "mm_per_mv": ecg_paper.MM_PER_MV, "rows_mm": ecg_paper.ROWS,
        "edges_mm": [ecg_paper.EDGE, ecg_paper.HEIGHT - ecg_paper.EDGE], "strips": ecg_paper.STRIPS,
    }  # fmt: skip


@contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """A folder beside it to write to, which takes its place when the block ends without an error."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as made:
        part = Path(made) / "page"
        (part / "assets" / "world").mkdir(parents=True)
        yield part
        if folder.exists():
            folder.rmdir()  # empty, as was seen
        part.rename(folder)
