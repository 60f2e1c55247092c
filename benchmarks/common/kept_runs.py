"""Judged episodes kept group by group, so that a long table goes on where it was killed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from agents.rollout import EpisodeResults
from clinenv.task import Outcomes
from world_models import tree
from world_models.tensor_file import read_tensors, save_tensors

__all__ = ["KeptRuns"]

_PLAIN = ("returns", "costs", "lengths", "ordered", "given", "refused")


class KeptRuns:
    """Episodes of many patients, judged a group at a time.

    Args:
        folder: where they are kept; runs of other settings lie beside them.
        settings: all that the results depend on, as JSON values.
        count: patients.
        group: judged together; another one is another setting, since a planner's luck follows its rows.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], count: int, group: int) -> None:
        text = json.dumps({**settings, "group": group}, sort_keys=True)
        self.folder = folder / hashlib.sha256(text.encode()).hexdigest()[:12]
        self.groups = [slice(start, min(start + group, count)) for start in range(0, count, group)]

    def episodes(self, label: str, judged: Callable[[slice], EpisodeResults]) -> EpisodeResults:
        """Of all patients; `judged(rows)` is asked for the groups that are not kept yet.

        Args:
            label: what is judged, and where; names of files are made of it.
        """
        found = []
        for rows in tqdm(self.groups, desc=label, leave=False):
            path = self.folder / label.replace("/", "-") / f"{rows.start}-{rows.stop}.safetensors"
            if not path.exists():
                save_tensors(path, _flat(judged(rows)))
            found.append(_whole(read_tensors(path)[0]))
        return tree.cat(found)


def _flat(episodes: EpisodeResults) -> dict[str, Tensor]:
    named = {name: getattr(episodes, name) for name in _PLAIN}
    for kind, part in (("term", episodes.terms), *zip(("total", "peak"), episodes.outcomes, strict=True)):
        named |= {f"{kind}.{name}": value for name, value in part.items()}
    return {name: value.clone() for name, value in named.items()}  # some may be one tensor


def _whole(tensors: Mapping[str, Tensor]) -> EpisodeResults:
    def of(kind: str) -> dict[str, Tensor]:
        return {name.partition(".")[2]: value for name, value in tensors.items() if name.startswith(f"{kind}.")}

    plain = {name: tensors[name] for name in _PLAIN}
    return EpisodeResults(terms=of("term"), outcomes=Outcomes(of("total"), of("peak")), **plain)
