"""All notes of a source to a file of contexts: batch by batch, resumed after a kill."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from tqdm import tqdm

from world_models.data.ehr.context.context_file import ContextWriter
from world_models.data.ehr.context.model import MOST_ATTEMPTS, Extraction, extract
from world_models.data.ehr.context.notes import Note, count_notes, read_notes
from world_models.data.ehr.tables import EhrDataError
from world_models.ehr_world.causal_lm.prompt import Backend

__all__ = ["read_all"]

SILENT = 8  # notes in a row without a single answer: the server is gone


def _batches(notes: Iterator[Note], size: int) -> Iterator[list[Note]]:
    batch: list[Note] = []
    for note in notes:
        batch.append(note)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def read_all(
    notes: str,
    out: str,
    backend: Backend | None = None,
    made_by: str = "rules",
    attempts: int = MOST_ATTEMPTS,
    batch: int = 64,
    quiet: bool = True,
) -> Counter[str]:
    """Read all notes that are not read yet; returns how many each speaker read, and what was refused.

    Raises:
        EhrDataError: notes or `out` that cannot be (nothing is written then), or a server that gives no answers.
    """
    total = count_notes(notes)
    counts: Counter[str] = Counter()
    silent: list[Extraction] = []  # the last ones, to which nothing was answered
    heard = False
    with ContextWriter(out, made_by) as file, tqdm(total=total, unit="note", disable=quiet) as bar:
        for some in _batches(read_notes(notes), batch):
            fresh = [note for note in some if not file.is_done(note)]
            found = extract([note.text for note in fresh], backend, attempts)
            for one in found:
                unheard = one.attempts == one.refused.get("no answer", 0) + one.refused.get("request refused", 0)
                silent = [*silent, one] if unheard and one.attempts else []
                heard = heard or not silent
            _check_heard(silent, heard)
            file.write(fresh, found)
            counts.update({"read before": len(some) - len(fresh)})
            counts.update(one.speaker for one in found)
            for one in found:
                counts.update({f"refused, {kind}": count for kind, count in one.refused.items()})
            bar.update(len(some))
        file.finish()
    return +counts


def _check_heard(silent: Sequence[Extraction], heard: bool) -> None:
    """Raises EhrDataError: a server that is gone must not turn a run into one of the rules."""
    never = not heard and any(one.refused.get("no answer") for one in silent)
    if len(silent) >= SILENT or never:
        raise EhrDataError(
            f"the model gave no answer to {len(silent)} notes in a row; the last: {silent[-1].error}. What was read "
            "before is kept: give the command again once the server answers, or leave --endpoint out for the rules"
        )
