"""Logged courses: what a behaviour did to N patients, with the chance of each decision, in one HDF5 file.

The file holds the steps of all stays one after the other, compressed, and one JSON text about them. Nothing in it is
unpickled, and the reader follows no link and no external storage.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from world_models.config_json import ConfigError, from_json, parse_json
from world_models.files import write_bytes

if TYPE_CHECKING:
    import h5py

__all__ = ["About", "Logged", "LoggedError", "load", "save"]

VERSION = 1
MOST_BYTES = 1 << 32  # of one array, once read
_TERM = "term_"  # before the name of a reward term
_STEPS = {  # name -> dtype of one step's
    "reward": "float32",
    "cost": "float32",
    "log_prob": "float32",
    "nominal_log_prob": "float32",
    "terminated": "bool",
    "truncated": "bool",
}
_STAYS = {"seed": "int64", "length": "int64", "hidden_severity": "float32"}


class LoggedError(ValueError):
    """A file of logged courses that cannot be used; the message says what is wrong with it and what to do."""


@dataclass(frozen=True)
class About:
    """What a log is of; plain JSON."""

    env_id: str
    task: str
    world: str
    weights_sha256: str | None  # the world's seal; None: it has no weights
    cohort: str | None
    behaviour: str  # what decided, in words
    confounding: float  # the dial: 0, the behaviour read the chart alone; 1, it also acted on a hidden severity
    first_seed: int  # of the first patient; the others follow
    patients: int
    most_steps: int  # after which an episode was truncated
    hours_per_step: float
    observation_names: tuple[str, ...]
    observation_units: tuple[str, ...]
    action_kind: str  # menu, levels, switches or doses
    action_labels: tuple[str, ...]
    version: int = VERSION


@dataclass(frozen=True)
class Logged:
    """N stays of at most T steps, padded with zeros after their ends. All on the CPU."""

    about: About
    seed: Tensor  # int64 [N]: of each patient, as for the environment's reset
    length: Tensor  # int64 [N]: steps
    observation: Tensor  # float32 [N, T + 1, n]: as the environment shows it
    choice: Tensor  # int64 [N, T, D] options, or float32 shares of the largest doses (`agents.offline.choices`)
    reward: Tensor  # float32 [N, T]
    cost: Tensor  # float32 [N, T]
    terms: dict[str, Tensor]  # name -> float32 [N, T]: what the reward is the sum of
    log_prob: Tensor  # float32 [N, T]: of the choice, given all that the behaviour saw, hidden severity included
    nominal_log_prob: Tensor  # float32 [N, T]: of the same choice with the dial at 0: what the charts alone tell
    terminated: Tensor  # bool [N, T]
    truncated: Tensor  # bool [N, T]
    hidden_severity: Tensor  # float32 [N]: rank at admission in (0, 1), in no observation; NaN in a learned world
    mask: Tensor | None = None  # int8 [N, T + 1, entries]: the action mask, where the task refuses orders

    @property
    def here(self) -> Tensor:
        """bool [N, T]: the steps that were."""
        return torch.arange(self.reward.shape[1]) < self.length.unsqueeze(-1)

    @property
    def returns(self) -> Tensor:
        """float32 [N]: sum of the rewards of each stay."""
        return self.reward.sum(-1)

    def stays(self, index: Tensor) -> Logged:
        """Those at index (int64 [K] or bool [N])."""
        rows = {name: value[index] for name, value in vars(self).items() if isinstance(value, Tensor)}
        terms = {name: value[index] for name, value in self.terms.items()}
        return Logged(about=self.about, terms=terms, mask=rows.pop("mask", None), **rows)


def _rows(logged: Logged) -> dict[str, np.ndarray]:
    """Everything as the file holds it: steps one after the other; observation and mask with one row more a stay."""
    here = logged.here
    shown = torch.arange(here.shape[1] + 1) <= logged.length.unsqueeze(-1)
    rows = {"observation": logged.observation[shown], "choice": logged.choice[here]}
    if logged.mask is not None:
        rows["mask"] = logged.mask[shown]
    rows |= {name: getattr(logged, name)[here] for name in _STEPS}
    rows |= {_TERM + name: value[here] for name, value in logged.terms.items()}
    rows |= {name: getattr(logged, name) for name in _STAYS}
    return {name: value.numpy() for name, value in rows.items()}


def save(logged: Logged, path: str | Path) -> None:
    """Write a log, whole or not at all."""
    import h5py

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Made in memory: HDF5 takes the process with it where a disk is full when it closes a file. In the format of 1.10,
    # of which the index of chunks has checksums, too: damaged, an older one ends the process that reads it.
    with h5py.File(path.name, "w", libver=("v110", "v110"), driver="core", backing_store=False) as file:
        about = np.frombuffer(json.dumps(asdict(logged.about)).encode(), np.uint8)
        for name, value in {"about": about, **_rows(logged)}.items():
            file.create_dataset(
                name, data=value, chunks=True, compression="gzip", compression_opts=6, shuffle=True, fletcher32=True
            )
        file.flush()
        image = file.id.get_file_image()
    write_bytes(path, image)


def load(path: str | Path) -> Logged:
    """Read a log.

    Raises:
        FileNotFoundError: there is none.
        LoggedError: it is none, is damaged, or keeps its rows elsewhere.
    """
    import h5py

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; make it with python -m agents.offline.make --out FOLDER")
    try:
        with h5py.File(path, "r") as file:
            rows = {name: _at_hand(file, path, name) for name in file}
        about = from_json(About, parse_json(rows.pop("about").tobytes(), f"about of {path}"), f"about of {path}")
        return _padded(about, rows, path)
    except LoggedError:
        raise
    except ConfigError as error:
        raise LoggedError(str(error)) from None
    except Exception as error:  # of any kind: HDF5 says it of bytes that make no sense
        raise LoggedError(f"{path} is damaged or no log ({error}); make it again") from error


def _at_hand(file: h5py.File, path: Path, name: str) -> np.ndarray:
    """The numbers of a data set that lies in this file."""
    import h5py

    if not isinstance(file.get(name, getlink=True), h5py.HardLink) or not isinstance(file[name], h5py.Dataset):
        raise LoggedError(f"{path}: {name} is a link or a group; a log holds its rows itself: make it again")
    data = file[name]
    if data.is_virtual or data.id.get_create_plist().get_external_count() or data.dtype.kind not in "fiub":
        raise LoggedError(f"{path}: {name} keeps no numbers of its own in this file; make it again")
    if data.nbytes > MOST_BYTES:
        raise LoggedError(f"{path}: {name} is said to be {data.nbytes} bytes, above {MOST_BYTES}; make it again")
    return data[()]


def _padded(about: About, rows: Mapping[str, np.ndarray], path: Path) -> Logged:
    """The log of the file's rows."""
    if about.version != VERSION:
        raise LoggedError(f"{path} is of version {about.version}, this one reads {VERSION}; make it again")
    terms = sorted(name for name in rows if name.startswith(_TERM))
    lacking = sorted({"observation", "choice", *_STEPS, *_STAYS} - set(rows))
    length = rows.get("length", np.zeros(0, np.int64))
    count, total = len(length), int(length.sum())
    sizes: dict[str, int] = {name: total for name in ("choice", *_STEPS, *terms)}
    sizes |= {name: total + count for name in ("observation", "mask") if name in rows} | dict.fromkeys(_STAYS, count)
    wrong = [name for name, size in sizes.items() if name in rows and len(rows[name]) != size]
    kinds = {**_STEPS, **_STAYS, "observation": "float32", **dict.fromkeys(terms, "float32")}
    wrong += [name for name, kind in kinds.items() if name in rows and rows[name].dtype != kind]
    if lacking or wrong or count != about.patients or not count or not (length >= 1).all():
        raise LoggedError(f"{path} lacks {lacking}, and {wrong} have another size or type than told; make it again")
    width = int(length.max())
    here = np.arange(width) < length[:, None]
    shown = np.arange(width + 1) <= length[:, None]

    def laid(name: str, where: np.ndarray) -> Tensor:
        out = np.zeros((*where.shape, *rows[name].shape[1:]), rows[name].dtype)
        out[where] = rows[name]
        return torch.from_numpy(out)

    return Logged(
        about=about,
        observation=laid("observation", shown),
        choice=laid("choice", here),
        terms={name.removeprefix(_TERM): laid(name, here) for name in terms},
        mask=laid("mask", shown) if "mask" in rows else None,
        **{name: laid(name, here) for name in _STEPS},
        **{name: torch.from_numpy(rows[name]) for name in _STAYS},
    )
