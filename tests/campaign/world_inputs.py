"""Weights, configurations, policies, submissions, snapshots and HDF5: whole ones, their damages, their readers."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import numpy as np

import clinenv  # noqa: F401  (registers the ids)
from agents.offline import logged
from agents.policy_agent import PolicyAgent
from clinenv.snapshot import _DIGEST, _MAGIC
from tests.campaign import small
from tests.campaign.damages import Damage, each, json_of, weights_of
from tests.campaign.mutations import damaged
from world_models import catalog, checkpoint
from world_models.data.ecg.monolith import read_monolith

__all__ = [
    "hdf5_bomb",
    "read_hdf5",
    "read_policy",
    "read_snapshots",
    "sealed_anew",
    "snapshot_damage",
    "submission_damage",
    "write_hdf5",
    "write_policy",
    "write_snapshots",
    "write_world",
]


def write_world(folder: Path, name: str) -> None:
    for file in (checkpoint.CONFIG, checkpoint.WEIGHTS):
        shutil.copy(catalog.weights_folder(name) / file, folder / file)


def sealed_anew(damage: Damage, form: Any) -> Damage:
    """The damage, half the time under a new seal, as its owner could."""

    def sealed(folder: Path, rng: random.Random) -> str:
        said = damage(folder, rng)
        if rng.random() < 0.5:
            try:
                form.seal(folder)
                return said + ", sealed"
            except (ValueError, OSError):
                pass
        return said

    return sealed


def write_policy(folder: Path) -> None:
    small.train_policy(folder)


def read_policy(folder: Path) -> None:
    PolicyAgent(folder, small.simulator())


def submission_damage(folder: Path, rng: random.Random) -> str:
    path = folder / "mine.json"
    if rng.random() < 0.2:
        told = json.loads(path.read_text())
        told[rng.choice(("files", "policy"))] = rng.choice(
            (["../outside"], "../outside", ["/etc"], ["."], "~", ["x\0"], [["a"]], "\ud800", ["mine.json/../.."], 7)
        )
        path.write_text(json.dumps(told))
        return "names"
    return json_of(folder, rng, "mine.json")


# ---- snapshots and HDF5


@lru_cache(maxsize=4)
def _env(name: str) -> Any:
    return gymnasium.make(name, uncertainty=False).unwrapped


_SNAPSHOTS = ("ECGDrug-v0", "EHRWard-v0", "ECGProgression-v0")


def write_snapshots(folder: Path) -> None:
    for name in _SNAPSHOTS:
        env = _env(name)
        env.reset(seed=3)
        env.step(env.action_space.sample())
        (folder / name).write_bytes(env.snapshot())


def snapshot_damage(folder: Path, rng: random.Random) -> str:
    """Of its bytes; or of what its checksum is over, which is made anew."""
    name = rng.choice(_SNAPSHOTS)
    path = folder / name
    content = path.read_bytes()
    if rng.random() < 0.4:
        path.write_bytes(damaged(content, rng, False))
        return name
    body = folder / "body"
    body.write_bytes(content[len(_MAGIC) + _DIGEST :])
    said = weights_of(folder, rng, "body")
    harmed = body.read_bytes()
    path.write_bytes(_MAGIC + hashlib.sha256(harmed).digest() + harmed)
    return f"{name}, {said}, summed up anew"


def read_snapshots(folder: Path) -> None:
    each([partial(_env(name).restore, (folder / name).read_bytes()) for name in _SNAPSHOTS])


def write_hdf5(folder: Path) -> None:
    small.write_monolith(folder / "m.h5")
    logged.save(small.log(), folder / "log.h5")


def hdf5_bomb(folder: Path, rng: random.Random) -> str:
    """A data set of one hundred gigabytes that takes no place, or another one that lies in the next folder."""
    path = folder / rng.choice(("m.h5", "log.h5"))
    with h5py.File(path, "r+") as file:
        name = rng.choice(sorted(file))
        shape, kind = file[name].shape, file[name].dtype
        del file[name]
        if rng.random() < 0.3:
            file[name] = h5py.ExternalLink(str(folder.parent / "outside" / path.name), name)
        elif rng.random() < 0.5:
            rows = (100 << 30) // max(1, kind.itemsize * int(np.prod(shape[1:])))
            file.create_dataset(name, (rows, *shape[1:]), kind, chunks=True, compression="gzip")
        else:
            file.create_dataset(name, data=np.zeros(rng.choice(((), (0,), (3, 3), (1 << 20,))), "f4"))
    return f"bomb {path.name}"


def read_hdf5(folder: Path) -> None:
    each((lambda: read_monolith(folder / "m.h5"), lambda: logged.load(folder / "log.h5")))
