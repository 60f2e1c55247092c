"""Logged courses as a Minari data set and back: equal arrays, HDF5, no pickle. Needs the extra `minari`.

Infos have the same keys at every step, the reset's included (its row is 0 where nothing has happened yet): cost,
reward_<term>, action_mask (where the task refuses orders), log_prob, nominal_log_prob, hidden_severity, confounding.
The patient's seed is the episode's; what else the log says of itself (world, seal, behaviour) stands in the data set's
metadata under "clinenv".
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from agents.offline.logged import About, Logged, LoggedError
from world_models import catalog
from world_models.config_json import ConfigError, from_json

if TYPE_CHECKING:
    from minari import MinariDataset

__all__ = ["as_logged", "folder_of", "write_minari"]

_ABOUT = "clinenv"  # in the metadata
_TERM = "reward_"
_STEP_INFOS = ("cost", "log_prob", "nominal_log_prob")


def _minari() -> ModuleType:
    try:
        import minari
    except ImportError as error:
        raise ImportError('Minari is not installed; pip install "clinenv[minari]"') from error
    return minari


def folder_of(root: str | Path, dataset_id: str) -> Path:
    """Where Minari looks for a data set if MINARI_DATASETS_PATH is `root`."""
    return Path(root) / dataset_id / "data"


def write_minari(logged: Logged, root: str | Path, dataset_id: str) -> MinariDataset:
    """Write a log as the Minari data set `dataset_id` (such as "clinenv/ECGDrug/mixed-v0") under `root`, whole or not
    at all.

    Raises:
        ImportError: Minari is not installed; the message names the extra.
        ValueError: there is such a data set already.
    """
    minari = _minari()
    from minari.data_collector import EpisodeBuffer
    from minari.dataset.minari_storage import MinariStorage

    folder = folder_of(root, dataset_id)
    if folder.exists():
        raise ValueError(f"{folder} is there already; remove it, or take another data set id or version")
    spaces = _spaces(logged.about)
    waiting = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(waiting, ignore_errors=True)
    waiting.mkdir(parents=True)
    try:
        storage = MinariStorage.new(waiting, *spaces, env_spec=_spec(logged.about), data_format="hdf5")
        told = {"dataset_id": dataset_id, "minari_version": minari.__version__, _ABOUT: asdict(logged.about)}
        described = f"{logged.about.patients} courses of {logged.about.env_id}: {logged.about.behaviour}"
        storage.update_metadata({**told, "algorithm_name": logged.about.behaviour, "description": described})
        storage.update_episodes(EpisodeBuffer(**episode) for episode in _episodes(logged))
        os.replace(waiting, folder)
    finally:
        shutil.rmtree(waiting, ignore_errors=True)
    return minari.MinariDataset(folder)


def _spec(about: About) -> Any:
    """The environment's spec in the log's world; None where the world has no name to load it by."""
    if about.world not in catalog.WORLDS or about.env_id not in gymnasium.registry:
        return None
    spec = gymnasium.spec(about.env_id)
    spec.kwargs = {**spec.kwargs, "world": about.world}
    return spec


def _spaces(about: About) -> tuple[gymnasium.Space[Any], gymnasium.Space[Any]]:
    """Observation and action space of the log's environment."""
    import clinenv  # noqa: F401  (registers the ids)

    if about.env_id not in gymnasium.registry:
        raise ValueError(f"{about.env_id!r} is no id that Gymnasium knows; register it first")
    named: dict[str, Any] = {"world": about.world} if about.world in catalog.WORLDS else {}
    env = gymnasium.make(about.env_id, **named)
    try:
        return env.observation_space, env.action_space
    finally:
        env.close()


def _episodes(logged: Logged) -> Iterator[dict[str, Any]]:
    """What Minari's EpisodeBuffer takes, a stay at a time."""
    action = logged.choice
    if logged.about.action_kind == "menu":
        action = action.squeeze(-1)
    elif logged.about.action_kind == "switches":
        action = action.to(torch.int8)  # as MultiBinary has it
    for i in range(len(logged.length)):
        steps = int(logged.length[i])
        infos = {name: _from_reset(getattr(logged, name)[i, :steps]) for name in _STEP_INFOS}
        infos |= {_TERM + name: _from_reset(value[i, :steps]) for name, value in logged.terms.items()}
        always = {"hidden_severity": logged.hidden_severity[i], "confounding": torch.tensor(logged.about.confounding)}
        infos |= {name: value.expand(steps + 1).numpy() for name, value in always.items()}
        if logged.mask is not None:
            infos["action_mask"] = logged.mask[i, : steps + 1].numpy()
        yield {
            "id": i,
            "seed": int(logged.seed[i]),
            "observations": logged.observation[i, : steps + 1].numpy(),
            "actions": action[i, :steps].numpy(),
            "rewards": logged.reward[i, :steps].numpy(),
            "terminations": logged.terminated[i, :steps].numpy(),
            "truncations": logged.truncated[i, :steps].numpy(),
            "infos": infos,
        }


def _from_reset(values: Tensor) -> np.ndarray:
    """[T + 1] of the values [T] of the steps: 0 at the reset."""
    return torch.cat([torch.zeros_like(values[:1]), values]).numpy()


def as_logged(dataset: MinariDataset) -> Logged:
    """The log that `write_minari` made a data set of.

    Raises:
        LoggedError: the data set does not say what it is a log of, or lacks an info.
    """
    try:
        about = from_json(About, json.loads(json.dumps(dataset.storage.metadata[_ABOUT])), f"metadata of {dataset.id}")
        seeds = [int(told["seed"]) for told in dataset.storage.get_episode_metadata(dataset.episode_indices)]
        return _joined(about, seeds, list(dataset.iterate_episodes()))
    except (KeyError, ConfigError) as error:
        raise LoggedError(
            f"data set {dataset.id} is no log of clinenv ({error}); export it with write_minari"
        ) from error


def _joined(about: About, seeds: list[int], episodes: list[Any]) -> Logged:
    length = torch.tensor([len(episode.rewards) for episode in episodes])

    def padded(values: list[np.ndarray], more: int = 0) -> Tensor:
        """[N, T + more, ...] of arrays [steps + more, ...]."""
        out = torch.zeros(
            (len(values), int(length.max()) + more, *values[0].shape[1:]), dtype=torch.from_numpy(values[0]).dtype
        )
        for i, value in enumerate(values):
            out[i, : len(value)] = torch.from_numpy(np.ascontiguousarray(value))
        return out

    infos = [episode.infos for episode in episodes]
    choice = padded([np.asarray(episode.actions) for episode in episodes])
    if about.action_kind == "menu":
        choice = choice.unsqueeze(-1)
    elif about.action_kind == "switches":
        choice = choice.to(torch.int64)
    terms = {n.removeprefix(_TERM): padded([i[n][1:] for i in infos]) for n in infos[0] if n.startswith(_TERM)}
    return Logged(
        about=about,
        seed=torch.tensor(seeds),
        length=length,
        observation=padded([episode.observations for episode in episodes], 1),
        choice=choice,
        reward=padded([episode.rewards for episode in episodes]),
        terms=terms,
        terminated=padded([episode.terminations for episode in episodes]),
        truncated=padded([episode.truncations for episode in episodes]),
        hidden_severity=torch.tensor(np.array([i["hidden_severity"][0] for i in infos])),
        mask=padded([i["action_mask"] for i in infos], 1) if "action_mask" in infos[0] else None,
        **{name: padded([i[name][1:] for i in infos]) for name in _STEP_INFOS},
    )
