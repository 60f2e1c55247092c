"""`clinenv counterfactual`: what the cardiac JEPA expects of this ECG's latent if a diagnosis set in or resolved.

The recorded ECG is encoded, the JEPA moves the latent by the transition asked for and the months in between, and the
probe reads both. The same months without any transition are moved as well: what the diagnosis does is the difference
between the two. No waveform is generated; stored ECGs that lie nearest show what such latents look like.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from clinenv.commands.counterfactual.inputs import Transition, check_settings, condition_name, transition_of
from clinenv.commands.counterfactual.moved_latent import MovedLatent, Neighbour
from clinenv.commands.errors import UsageError
from clinenv.commands.measure import check_measurable, measure_record
from clinenv.commands.output import output_paths, write_whole
from clinenv.rendering.labels import NOT_FOR_CLINICAL_USE
from world_models.quantities.progression import SAMPLING_RATE_HZ
from world_models.quantity import DAYS_PER_MONTH, by_name

if TYPE_CHECKING:
    from torch import Tensor

    from world_models.cardiac_jepa.model import CardiacJEPAWorld

__all__ = ["move_latent", "run"]

PRINTED = 3  # of the other conditions, on the terminal
ROUNDING_MONTHS = 1e-3  # months are kept as days in float32
COMPARED = 1024  # rows of the bank for distances between patients: half a million pairs
USUAL = 0.99  # share of the bank's ECGs whose nearest neighbour is nearer than what still counts as usual


def move_latent(world: CardiacJEPAWorld, latent: Tensor, transition: Transition, neighbours: int) -> MovedLatent:
    """Move the latent [1, Z] of one ECG and read it.

    Args:
        latent: as `Reader.latents` gives it.
        transition: of this patient, checked.
        neighbours: how many stored ECGs to look up for each of the two latents.
    """
    import torch

    bound = by_name(world.measures, "latent")
    with torch.no_grad():
        action = torch.from_numpy(transition.action)[None].to(latent)
        days = torch.full((1,), transition.months * DAYS_PER_MONTH).to(latent)
        after = world.jepa.predict(latent, action, days).clamp(bound.low, bound.high)
        without = world.jepa.predict(latent, torch.zeros_like(action), days).clamp(bound.low, bound.high)
        three = torch.cat([latent, after, without])
        chance = world.reader.chances(three).double().cpu().numpy()
        bank = world.reference_latents()
        supported, support = _support(world, bank, after)
    stored = len(world.bank_ecg) or len(bank)
    return MovedLatent(
        codes=tuple(world.codes),
        before=chance[0],
        after=chance[1],
        without=chance[2],
        threshold=world.reader.threshold.double().cpu().numpy(),
        latents=three.double().cpu().numpy(),
        distances=_distances(world, bank, three),
        nearest_before=_nearest(world, bank[:stored], latent[0], neighbours),
        nearest_after=_nearest(world, bank[:stored], after[0], neighbours),
        stored=stored,
        supported=supported,
        support=support,
    )


def _distances(world: CardiacJEPAWorld, bank: Tensor, three: Tensor) -> dict[str, float]:
    """Euclidean, between latents: the moves in `three` [3, Z], and what they can be compared with."""
    import torch

    pairs = (world.pair_after.float() - world.pair_before.float()).norm(dim=-1)
    patients = torch.pdist(bank[:COMPARED])
    before, after, without = three
    return {
        "moved": float((after - before).norm()),
        "moved_without": float((without - before).norm()),
        "by_the_transition": float((after - without).norm()),
        "two_visits": float(pairs.median()) if len(pairs) else math.nan,
        "two_patients": float(patients.median()) if len(patients) else math.nan,
        "not_foretold": float(world.residual.square().sum().sqrt()),
    }


def _support(world: CardiacJEPAWorld, bank: Tensor, latent: Tensor) -> tuple[bool, str]:
    """Whether the latent [1, Z] lies among those of training, by its length and its nearest in the bank [R, Z]."""
    import torch

    length, reach = float(latent.norm()), float(world.reach)
    if length > reach:
        return False, f"the moved latent is longer ({length:.1f}) than any that was met in training ({reach:.1f})"
    if len(bank) < 2:
        return True, f"the moved latent is no longer ({length:.1f}) than those met in training ({reach:.1f})"
    gap = float(torch.cdist(latent, bank).amin())
    apart = torch.cdist(bank, bank)
    apart.fill_diagonal_(math.inf)
    usual = float(apart.amin(1).quantile(USUAL))
    words = (
        f"the nearest of {len(bank)} stored latents is {gap:.1f} away from the moved one; {100 * USUAL:.0f} % of those "
        f"have another within {usual:.1f}"
    )
    return gap <= usual, words


def _nearest(world: CardiacJEPAWorld, bank: Tensor, latent: Tensor, count: int) -> tuple[Neighbour, ...]:
    """The `count` ECGs of the bank [R, Z] nearest to the latent [Z], nearest first."""
    far = (bank - latent).norm(dim=-1)
    rows = far.argsort(stable=True)[:count].tolist()
    kept = len(world.bank_ecg)
    return tuple(
        Neighbour(
            row=i,
            distance=float(far[i]),
            conditions=tuple(c for c, has in zip(world.codes, world.bank_condition[i].tolist(), strict=True) if has),
            age_years=float(world.bank_age_years[i]),
            sex_female=bool(world.bank_sex_female[i] > 0.5),
            ecg_mv=world.bank_ecg[i].float().cpu().numpy() if i < kept else None,
        )
        for i in rows
    )


def _warnings(
    world: CardiacJEPAWorld, of_the_record: Sequence[str], transition: Transition, moved: MovedLatent, read: np.ndarray
) -> list[str]:
    notes = list(of_the_record)
    codes = moved.codes
    for i in np.flatnonzero(transition.action > 0):
        if read[i]:
            notes.append(f"the probe reads {codes[i]} in the recorded ECG already, though --present leaves it out")
        if moved.threshold[i] >= 1:
            notes.append(f"the probe has no threshold for {codes[i]}: too few ECGs had it to set one")
        elif moved.after[i] < moved.threshold[i]:
            notes.append(
                f"the probe does not read {codes[i]} in the moved latent: {moved.after[i]:.2f} is under its threshold "
                f"{moved.threshold[i]:.2f}"
            )
    for i in np.flatnonzero(transition.action < 0):
        if moved.after[i] >= moved.threshold[i]:
            notes.append(
                f"the probe still reads {codes[i]} in the moved latent: {moved.after[i]:.2f} is over its threshold "
                f"{moved.threshold[i]:.2f}"
            )
    if not moved.supported:
        notes.append(f"extrapolation: {moved.support}")
    days = world.pair_days
    if len(days):
        low, high = float(days.min()) / DAYS_PER_MONTH, float(days.max()) / DAYS_PER_MONTH
        if not low - ROUNDING_MONTHS <= transition.months <= high + ROUNDING_MONTHS:
            notes.append(
                f"{transition.months:g} months: visits of the world's pairs lie {low:.1f} to {high:.1f} months apart"
            )
    if not len(world.bank_ecg):
        notes.append("the weights of this world hold no ECGs: the nearest are listed without their waveforms")
    return notes


def _number(value: float) -> float | None:
    """To four decimals; None where it is not finite."""
    return round(float(value), 4) if math.isfinite(value) else None


def _neighbours_as_json(near: Sequence[Neighbour]) -> list[dict[str, Any]]:
    return [
        {
            "row": n.row,
            "distance": _number(n.distance),
            "conditions": list(n.conditions),
            "age_years": _number(n.age_years),
            "sex": "F" if n.sex_female else "M",
        }
        for n in near
    ]


def _as_json(
    record: str, transition: Transition, moved: MovedLatent, world: dict[str, str], warnings: list[str]
) -> dict[str, Any]:
    codes = moved.codes
    return {
        "note": NOT_FOR_CLINICAL_USE,
        "record": record,
        "world": world,
        "onset": [codes[i] for i in np.flatnonzero(transition.action > 0)],
        "resolve": [codes[i] for i in np.flatnonzero(transition.action < 0)],
        "months": transition.months,
        "present": [codes[i] for i in np.flatnonzero(transition.present)],
        "present_from": "given" if transition.given else "probe",
        "probe": {
            code: {
                "before": _number(moved.before[i]),
                "after": _number(moved.after[i]),
                "without": _number(moved.without[i]),
                "threshold": _number(moved.threshold[i]),
            }
            for i, code in enumerate(codes)
        },
        "other_decisions_changed": [codes[i] for i in moved.changed(transition.action)],
        "distances": {name: _number(value) for name, value in moved.distances.items()},
        "supported": moved.supported,
        "support": moved.support,
        "stored_ecgs": moved.stored,
        "nearest_before": _neighbours_as_json(moved.nearest_before),
        "nearest_after": _neighbours_as_json(moved.nearest_after),
        "latent_before": [_number(v) for v in moved.latents[0]],
        "latent_after": [_number(v) for v in moved.latents[1]],
        "warnings": warnings,
    }


def _load(name: str) -> CardiacJEPAWorld:
    """The world, known to be one that moves latents by diagnoses.

    Raises:
        UsageError: it is not.
    """
    from clinenv.commands.worlds import load_world
    from world_models.cardiac_jepa.model import CardiacJEPAWorld

    world = load_world(name)
    if not isinstance(world, CardiacJEPAWorld):
        raise UsageError(
            f"--world {name}: it does not move ECGs by diagnoses; give cardiac-jepa-small, or a folder of weights made "
            "by python -m world_models.cardiac_jepa.train"
        )
    if world.jepa.action is None:
        raise UsageError(
            f"--world {name}: it was trained without diagnoses, so none can move its latents; give another"
        )
    return world


def run(given: argparse.Namespace) -> int:
    """Read, move, and only then write.

    Raises:
        UsageError: an argument, the record or the world cannot be used.
        OSError: a file cannot be written.
    """
    check_settings(given)
    out, target = output_paths(given)
    assert out is not None, "--out has a default"
    import torch

    from clinenv.commands.counterfactual.page import page
    from clinenv.commands.worlds import about
    from world_models.data.ecg.wfdb.reader import RecordError, read_ecg

    world = _load(given.world)
    found = measure_record(given.ecg, rate_hz=given.rate_hz, repair=False)
    check_measurable(found)
    try:
        recording = read_ecg(given.ecg, sampling_rate_hz=SAMPLING_RATE_HZ, rate_hz=given.rate_hz)
    except RecordError as error:
        raise UsageError(str(error)) from error
    with torch.no_grad():
        latent = world.reader.latents(recording.ecg_mv[None].to(world.device))
        read = (world.reader.chances(latent) >= world.reader.threshold)[0].cpu().numpy()
    transition = transition_of(world.codes, given.onset, given.resolve, given.present, read, given.months)
    moved = move_latent(world, latent, transition, given.neighbours)
    warnings = _warnings(world, found.warnings, transition, moved, read)
    described = about(given.world, world)
    command = "clinenv " + shlex.join(sys.argv[1:]) if sys.argv[1:2] == ["counterfactual"] else ""
    html = page(recording, transition, moved, world, described, warnings, command)
    numbers = _as_json(recording.name, transition, moved, described, warnings)
    text = json.dumps(numbers, indent=2, allow_nan=False) + "\n"
    write_whole(out, html)
    if target is not None:
        write_whole(target, text)
    _print_summary(recording.name, transition, moved, warnings)
    print(f"wrote {out}" + (f" and {target}" if target is not None else ""))
    print(NOT_FOR_CLINICAL_USE)
    return 0


def _print_summary(record: str, transition: Transition, moved: MovedLatent, warnings: list[str]) -> None:
    def line(i: int) -> str:
        name = condition_name(moved.codes[i])
        return f"  {moved.codes[i]} {moved.before[i]:.2f} -> {moved.after[i]:.2f}  {name}"

    print(f"record {record}: chances that the probe reads, now -> in {transition.months:g} months")
    for i in np.flatnonzero(transition.action).tolist():
        print(f"{line(i)}: {'sets in' if transition.action[i] > 0 else 'resolves'} ({moved.without[i]:.2f} without it)")
    print("largest other changes")
    for i in moved.largest(transition.action)[:PRINTED]:
        print(line(i))
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
