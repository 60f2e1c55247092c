"""Training stays for the language models: a file of texts, or a MEDS folder of PatientEpisodes; encoded once."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from world_models.ehr_world.causal_lm.codec import NarrativeCodec, windows
from world_models.ehr_world.causal_lm.parse import read_stays
from world_models.ehr_world.causal_lm.text import Narrative, NarrativeError, narrative_of

__all__ = ["Window", "encoded_windows", "order", "stays_of"]

_log = logging.getLogger(__name__)


class Window(NamedTuple):
    """A `codec.Encoded` as arrays, which take a fraction of the memory of lists."""

    ids: np.ndarray  # int32 [N]
    labels: np.ndarray  # int32 [N]


def stays_of(path: str | Path, split: str | None = "train", diagnoses: bool = False) -> list[Narrative]:
    """Stays from a text file (`text.render`, an empty line between two) or a folder that the pipeline wrote.

    Args:
        split: of a MEDS folder, the subjects of this split in metadata/subject_splits.parquet; None takes all.

    Raises:
        FileNotFoundError: neither. NarrativeError: no stay, or one that does not parse.
    """
    path = Path(path)
    if path.is_file() and path.suffix != ".parquet":
        return read_stays(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; give a file of stays as text, or a MEDS folder of episodes")
    import pyarrow.parquet as pq

    from world_models.data.ehr.meds.reader import data_files
    from world_models.data.ehr.meds.writer import read_episodes

    wanted = None
    splits = path / "metadata" / "subject_splits.parquet"
    if split is not None and splits.is_file():
        table = pq.read_table(splits).to_pydict()
        wanted = {s for s, name in zip(table["subject_id"], table["split"], strict=True) if name == split}
    episodes = (e for file in data_files(path) for e in read_episodes(file))
    stays = [narrative_of(e, diagnoses) for e in episodes if wanted is None or e.subject_id in wanted]
    stays = [stay for stay in stays if stay.steps]
    if not stays:
        raise NarrativeError(f"{path} holds no stay with events in split {split!r}; look at its metadata and flow.json")
    return stays


def encoded_windows(
    codec: NarrativeCodec, stays: Iterable[Narrative], limit: int, all_tokens: bool = False
) -> list[Window]:
    """Every stay in windows of at most `limit` tokens (`codec.windows`).

    Raises:
        NarrativeError: nothing to learn from, or a step that is too long.
    """
    found: list[Window] = []
    lost = 0
    for stay in stays:
        stay, unknown = codec.known(stay)
        lost += unknown
        for e in windows(codec, stay, limit, all_tokens):
            found.append(Window(np.array(e.ids, np.int32), np.array(e.labels, np.int32)))
    if lost:
        _log.warning("%d inquiries are of items that the vocabulary does not know; they were left out", lost)
    if not found:
        raise NarrativeError("the stays hold no outcome; give stays with inquiries that have results")
    return found


def order(count: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of 0 .. count - 1, a function of seed and epoch."""
    return np.random.default_rng([seed, epoch]).permutation(count)
