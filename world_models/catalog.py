"""The worlds by name: a literal table, and one loader that keeps a single copy of a world in a process."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Hashable
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

from world_models import checkpoint, half
from world_models.devices import checked_device
from world_models.kept import LastMade
from world_models.protocol import HasWeights, WorldModel

__all__ = ["LOADERS", "WORLDS", "Entry", "checked_step", "load", "weights_folder"]


@dataclass(frozen=True, slots=True)
class Entry:
    """How a world is made: `factory` is "module:name" or "module:Class.method"."""

    factory: str
    weights: str | None = None  # folder under world_models/weights, for a learned world; None: made from nothing
    meaning: str = ""  # one line, for a world that has no card


WORLDS: dict[str, Entry] = {
    "oracle": Entry(
        "world_models.oracles.ecg_drug.world:ECGDrugOracle",
        meaning=(
            "Mechanistic: pharmacokinetics, effect compartments, rhythm and a synthesised 12-lead ECG; nothing is "
            "learned"
        ),
    ),
    "ward-oracle": Entry(
        "world_models.oracles.ward.world:WardOracle",
        meaning="Mechanistic: a hospital stay that answers orders, from published physiology; nothing is learned",
    ),
    "progression-oracle": Entry(
        "world_models.cardiac_jepa.reading:ReadOracle.shipped",
        meaning=(
            "Mechanistic: conditions that come and go over years under treatment, synthesised ECGs; only their reader "
            "is learned"
        ),
    ),
    "ecg-wm-small": Entry("world_models.ecg_wm.model:ECGWorldModel.load", "ecg-wm-small"),
    "ehr-ward-small": Entry("world_models.ehr_world.set_outcome.world:EHRWorldModel.load", "ehr-ward-small"),
    "ehr-mimic-demo-small": Entry(
        "world_models.ehr_world.set_outcome.world:EHRWorldModel.load", "ehr-mimic-demo-small"
    ),
    "ehr-icu-small": Entry("world_models.ehr_world.set_outcome.world:EHRWorldModel.load", "ehr-icu-small"),
    "ehr-icu-hourly-small": Entry(
        "world_models.ehr_world.set_outcome.world:EHRWorldModel.load", "ehr-icu-hourly-small"
    ),
    "cardiac-jepa-small": Entry("world_models.cardiac_jepa.model:CardiacJEPAWorld.load", "cardiac-jepa-small"),
}

# What a folder's config.json may name as its "kind": which code may read it.
LOADERS: dict[str, str] = {
    "ecg-wm": "world_models.ecg_wm.model:ECGWorldModel.load",
    "ehr-set-outcome": "world_models.ehr_world.set_outcome.world:EHRWorldModel.load",
    "cardiac-jepa": "world_models.cardiac_jepa.model:CardiacJEPAWorld.load",
}

ENSEMBLE = "ensemble:"  # before the names or folders of its members, with commas between them
CAUSAL_LM = "causal-lm:"  # before the folder of a language model that was made a ward
_MADE: LastMade[WorldModel] = LastMade(32)


def weights_folder(name: str) -> Path:
    """Where the shipped weights of a catalogued world lie.

    Raises:
        KeyError: no world of the catalogue.
        ValueError: a world without weights.
    """
    entry = WORLDS[name]
    if entry.weights is None:
        raise ValueError(f"world {name!r} has no weights")
    return Path(__file__).parent / "weights" / entry.weights


def load(
    name_or_path: str | Path,
    device: str = "cpu",
    cohort: str | None = None,
    sha256: str | None = None,
    hours_per_step: float | None = None,
    dtype: str | None = None,
) -> WorldModel:
    """A world by its name in WORLDS or by the folder with its weights; the same arguments give the same object.

    "ensemble:PATH1,PATH2" is several such worlds as one (`world_models.ensemble`); "causal-lm:PATH" is a language model
    of stays as a ward (`ehr_world.causal_lm.ward`).

    Args:
        device: where its tensors live.
        cohort: which patients it samples; None: its default.
        sha256: the seal that config and weights must bear; only for worlds that have weights.
        hours_per_step: for worlds that know several; None: the world's own.
        dtype: "bfloat16" or "float16", in which a learned world then multiplies matrices (`half`); None: "float32".

    Raises:
        ValueError: an unknown name, a path that is no world's folder, a device that cannot be used, a world without
            cohorts or with other steps, or one that does not tolerate the precision.
        FileNotFoundError: a file of the folder is missing.
        CheckpointError (a ValueError): config or weights are damaged, altered, or not those asked for.
    """
    if not isinstance(name_or_path, str | Path):
        raise ValueError(
            f"world {name_or_path!r} is a {type(name_or_path).__name__}; give a name of the catalogue "
            f"({', '.join(WORLDS)}), a folder, or where an environment is made the world itself"
        )
    dtype = half.checked_dtype(dtype)
    if str(name_or_path).startswith(ENSEMBLE):
        return _ensemble(str(name_or_path), device, cohort, sha256, hours_per_step, dtype)
    device = str(checked_device(device))
    if not isinstance(cohort, Hashable):
        raise ValueError(
            f"cohort={cohort!r} is a {type(cohort).__name__}; give the name of a cohort, or a "
            "cohort object of that world"
        )
    hours_per_step = None if hours_per_step is None else checked_step(hours_per_step)
    name = str(name_or_path)
    options = (device, cohort, hours_per_step, dtype)
    if name.startswith(CAUSAL_LM):
        return _causal_lm(name, sha256, *options)
    factory, folder = _source(name)
    if folder is None:
        world = _MADE.get((name, *options), lambda: _made(name, factory, None, *options))
        _check_seal(name, world.weights_sha256 if isinstance(world, HasWeights) else None, sha256)
        return world
    with checkpoint.opened(folder) as found:
        _check_seal(name, found.sha256, sha256)
        # The seal is part of the key: a folder that was trained anew is loaded anew.
        key = (name, folder.resolve(), found.sha256, *options)
        return _MADE.get(key, lambda: _made(name, factory, found, *options))


def _causal_lm(
    name: str, sha256: str | None, device: str, cohort: str | None, hours_per_step: float | None, dtype: str
) -> WorldModel:
    """The ward of a language model. Raises as `load`."""
    from world_models.ehr_world.causal_lm.ward import folder

    path = Path(name.removeprefix(CAUSAL_LM).strip())
    if not path.name:
        raise ValueError(f"world {name!r} names no folder; {folder.REMEDY}")
    with folder.opened(path) as found:
        _check_seal(name, found.sha256, sha256)
        options = (device, cohort, hours_per_step, dtype)
        factory = "world_models.ehr_world.causal_lm.ward.world:CausalWard.load"
        key = (CAUSAL_LM, path.resolve(), found.sha256, *options)
        return _MADE.get(key, lambda: _made(name, factory, found, *options))


def _ensemble(
    name: str, device: str, cohort: str | None, sha256: str | None, hours_per_step: float | None, dtype: str
) -> WorldModel:
    """The world of several. Raises as `load` and `ensemble.of`."""
    from world_models import ensemble

    parts = [part.strip() for part in name.removeprefix(ENSEMBLE).split(",")]
    if sha256 is not None:
        raise ValueError(f"world {name!r}: each member bears a seal of its own; leave sha256 out")
    if len(set(parts)) != len(parts) or "" in parts:
        raise ValueError(f"world {name!r} needs several different worlds: ensemble:PATH1,PATH2")
    members: list[Any] = [load(part, device, cohort, hours_per_step=hours_per_step, dtype=dtype) for part in parts]
    seals = tuple(member.weights_sha256 if isinstance(member, HasWeights) else None for member in members)
    called = f"ensemble of {', '.join(member.name for member in members)}"
    return _MADE.get((name, seals, device, cohort, hours_per_step, dtype), lambda: ensemble.of(members, called))


def _source(name: str) -> tuple[str, Path | None]:
    """The factory of a world by its name or folder, and the folder of its weights (None: it has none).

    Raises:
        ValueError: neither a name of the catalogue nor a folder.
        FileNotFoundError: the folder has no config.
        CheckpointError: its config is damaged, or of a kind that is not known.
    """
    if name in WORLDS:
        return WORLDS[name].factory, weights_folder(name) if WORLDS[name].weights else None
    folder = Path(name)
    if not name or not folder.is_dir():
        raise ValueError(
            f"unknown world {name!r}: it is neither a name of the catalogue ({', '.join(WORLDS)}) nor a folder "
            f"with {checkpoint.CONFIG} and {checkpoint.WEIGHTS}"
        )
    config = checkpoint.read_config(folder)
    kind = config.get("kind")
    if kind is None and "model_type" in config:  # Hugging Face's own
        raise ValueError(
            f"{folder} holds a {config['model_type']!r} checkpoint of transformers; one that was made a ward "
            f"(python -m world_models.ehr_world.causal_lm.ward.train) is given as {CAUSAL_LM}{folder}"
        )
    if not isinstance(kind, str) or kind not in LOADERS:
        raise checkpoint.CheckpointError(
            f"{folder / checkpoint.CONFIG} says kind={kind!r}; known kinds are {', '.join(LOADERS)}"
        )
    return LOADERS[kind], folder


def checked_step(hours_per_step: Any) -> float:
    """Hours that a step can last. Raises ValueError: no finite number above 0."""
    number = isinstance(hours_per_step, Real) and not isinstance(hours_per_step, bool)
    if not number or not 0 < hours_per_step < float("inf"):
        raise ValueError(f"hours_per_step={hours_per_step!r} is no length of a step; give a number above 0, such as 2")
    return float(hours_per_step)


def _check_seal(name: str, found: str | None, registered: str | None) -> None:
    """Raises CheckpointError unless the weights of this name bear the seal that it is registered with."""
    if registered is not None and found is not None and found != registered:
        raise checkpoint.CheckpointError(
            f"config and weights of world {name!r} bear the seal {found}, but the registration of that name stands for "
            f"{registered}: a result with them would not be one of this version. Restore the released folder, or give "
            "your own folder as the world by its path"
        )


def _made(
    name: str,
    factory: str,
    folder: checkpoint.Opened | None,
    device: str,
    cohort: str | None,
    hours_per_step: float | None,
    dtype: str,
) -> WorldModel:
    make = _find(factory)
    arguments: dict[str, Any] = {"device": device}
    if cohort is not None:
        if "cohort" not in inspect.signature(make).parameters:
            raise ValueError(f"world {name!r} knows no cohorts, so cohort={cohort!r} cannot be chosen; leave it out")
        arguments["cohort"] = cohort
    if hours_per_step is not None and "hours_per_step" in inspect.signature(make).parameters:
        arguments["hours_per_step"] = hours_per_step
    world = make(**arguments) if folder is None else make(folder, **arguments)
    if hours_per_step is not None and world.hours_per_step != hours_per_step:
        raise ValueError(
            f"hours_per_step={hours_per_step:g}: world {name!r} makes steps of {world.hours_per_step:g} h and no "
            "other; leave it out, or take a world that knows several (an oracle)"
        )
    return half.with_dtype(world, dtype)


def _find(factory: str) -> Any:
    module, _, path = factory.partition(":")
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return found
