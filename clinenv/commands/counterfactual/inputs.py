"""What `clinenv counterfactual` is told: its arguments, and the checks of the transition against patient and world."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clinenv.commands.errors import UsageError
from clinenv.commands.measure import add_record_arguments, check_rate
from world_models.data import icd10
from world_models.quantities.progression import CONDITIONS

__all__ = ["Transition", "add_arguments", "check_settings", "condition_name", "transition_of"]

MOST_NEIGHBOURS, MOST_MONTHS = 12, 24.0  # months: the longest a visit can be ordered ahead


@dataclass(frozen=True)
class Transition:
    """What is to change, checked against what can happen to this patient. Arrays over the world's C codes."""

    action: np.ndarray  # [C] in {-1, 0, 1}: resolves, stays, sets in
    present: np.ndarray  # bool [C] before it
    given: bool  # whether `present` was given, or read by the probe
    months: float


def condition_name(code: str) -> str:
    """A code in words; empty for one that no table names."""
    return CONDITIONS.get(code) or icd10.CATEGORIES.get(code, "")


def transition_of(
    codes: Sequence[str],
    onset: Sequence[str],
    resolve: Sequence[str],
    present: Sequence[str] | None,
    read: np.ndarray,
    months: float,
) -> Transition:
    """Check the transition against the codes the world knows and against what this patient has.

    Args:
        codes: of the world.
        onset: codes that set in.
        resolve: codes that resolve.
        present: codes known to be present; None: those of `read`.
        read: bool [C], what the probe reads in the ECG.
        months: from the ECG to the one imagined.

    Raises:
        UsageError: an unknown code, one both set in and resolved, an onset of what is there, a resolution of what is
            not there or never goes.
    """
    import torch

    from world_models.cardiac_jepa.dynamics import ImpossibleActionError, action_of, check_actions

    _check_codes(codes, onset, resolve, present)
    had = read if present is None else action_of(codes, onset=present).numpy() > 0
    try:
        action = action_of(codes, onset, resolve)
        check_actions(torch.from_numpy(had)[None], action[None], codes)
    except ImpossibleActionError as error:
        raise UsageError(_impossible(str(error), codes, onset, resolve, had, present is not None)) from error
    return Transition(action.numpy(), had, present is not None, float(months))


def _check_codes(
    codes: Sequence[str], onset: Sequence[str], resolve: Sequence[str], present: Sequence[str] | None
) -> None:
    """Refuse a code that the world does not know, and list those it knows."""
    from world_models.cardiac_jepa.dynamics import ImpossibleActionError, action_of

    for flag, values in (("--onset", onset), ("--resolve", resolve), ("--present", present or ())):
        for code in values:
            try:
                action_of(codes, onset=(code,))
            except ImpossibleActionError as error:
                known = "; ".join(f"{c} {condition_name(c)}".strip() for c in codes)
                # without its own remedies: the list below is the one that serves here
                reason = re.split(r"; give one of those|\. This model|\. Choose one", str(error))[0]
                raise UsageError(f"{flag} {code}: {reason}. Give one of the codes this world knows: {known}") from error


def _impossible(
    error: str, codes: Sequence[str], onset: Sequence[str], resolve: Sequence[str], had: np.ndarray, given: bool
) -> str:
    """What a person is told of a transition that cannot happen: the argument, the reason, who is right, the remedy.

    Args:
        error: what the model says, of a batch of one.
        had: bool [C] conditions present.
        given: whether these were given, or read by the probe.
    """
    reason = error.removeprefix("row 0, ")
    named = next((c for c in codes if reason.startswith(c)), "")
    flag = next((f"--resolve {v}: " for v in resolve if named and v.upper().startswith(named)), "")
    flag = next((f"--onset {v}: " for v in onset if named and v.upper().startswith(named)), flag)
    has = " ".join(c for c, there in zip(codes, had, strict=True) if there) or "none of the codes"
    whose = "--present says" if given else "the probe reads in this ECG"
    reason = reason.removeprefix(f"{named}: ") if flag else reason
    return (
        f"{flag}{reason}. Present is what {whose} ({has}); ask for another change, or say with --present CODE ... "
        "what the patient has"
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """State the arguments of `clinenv counterfactual`."""
    add = parser.add_argument
    add_record_arguments(parser)
    for flag, words in (
        ("--onset", "diagnoses that set in, ICD-10 codes of chapter IX (I00 to I99), such as I48 or I48.91"),
        ("--resolve", "diagnoses that resolve"),
    ):
        add(flag, nargs="+", action="extend", default=[], metavar="CODE", help=words)
    add(
        "--present",
        nargs="*",
        action="extend",
        metavar="CODE",
        help="diagnoses the patient has; without a code: none of them (default: those the probe reads in the ECG)",
    )
    add("--months", type=float, default=6.0, help="months from the ECG to the one imagined, 0 to 24 (default 6)")
    add("--world", default="cardiac-jepa-small", help="name or folder of a learned world (default cardiac-jepa-small)")
    add("--neighbours", type=int, default=3, metavar="N", help="stored ECGs to show beside each latent (default 3)")
    add("--out", default="report.html", metavar="HTML", help="write the report to this file (default report.html)")
    add("--json", metavar="OUT", help="also write the numbers to this file")


def check_settings(given: argparse.Namespace) -> None:
    """Refuse a question without a transition, and settings out of range.

    Raises:
        UsageError: there is no transition, or a setting is out of range.
    """
    if not given.onset and not given.resolve:
        raise UsageError(
            "nothing is to change; say what sets in with --onset CODE or what resolves with --resolve CODE"
        )
    check_rate(given.rate_hz)
    if not 0 <= given.months <= MOST_MONTHS:  # so is NaN
        raise UsageError(
            f"--months {given.months:g} is outside 0 to {MOST_MONTHS:g}, the times between two visits; give a number "
            "in between"
        )
    if not 1 <= given.neighbours <= MOST_NEIGHBOURS:
        raise UsageError(f"--neighbours {given.neighbours} is outside 1 to {MOST_NEIGHBOURS}; 3 is the default")
