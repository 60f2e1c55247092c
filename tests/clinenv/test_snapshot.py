"""Snapshots that were harmed, made elsewhere or made up bring nobody back, and what they were to replace stays."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

import gymnasium
import numpy as np
import pytest
import torch
from safetensors.torch import load, save

import clinenv  # noqa: F401
from clinenv.snapshot import SnapshotError
from tests.toy_world import ToyWorld
from world_models import catalog

MAGIC = len(b"clinenv-snapshot-2\n") + 32


def env(count: int = 1, **other):
    kwargs = {"world": ToyWorld(hazard=0.0), **other}
    made = gymnasium.make_vec("ECGDrug-v0", num_envs=count, vectorization_mode="vector_entry_point", **kwargs).unwrapped
    made.reset(seed=5)
    return made


def made_up(snapshot: bytes, change: Callable[[dict[str, torch.Tensor]], object]) -> bytes:
    """The snapshot with other tensors and the checksum that goes with them."""
    body = snapshot[MAGIC:]
    tensors = load(body)
    header = json.loads(body[8 : 8 + int.from_bytes(body[:8], "little")])["__metadata__"]
    change(tensors)
    body = save({name: tensor.clone() for name, tensor in tensors.items()}, header)
    return snapshot[: MAGIC - 32] + hashlib.sha256(body).digest() + body


def test_every_flipped_byte_is_found() -> None:
    here = env()
    kept = here.snapshot()
    before = here.snapshot()
    luck = np.random.default_rng(0)
    for place in {*range(MAGIC + 40), *luck.integers(len(kept), size=600).tolist()}:
        harmed = bytearray(kept)
        harmed[place] ^= 1 << int(luck.integers(8))
        with pytest.raises(SnapshotError, match="no snapshot|checksum"):
            here.restore(bytes(harmed))
    for cut in (0, 1, MAGIC, MAGIC + 8, len(kept) - 1):
        with pytest.raises(SnapshotError, match="no snapshot|checksum"):
            here.restore(kept[:cut])
    for odd in (None, 7, "text", [kept]):
        with pytest.raises(SnapshotError, match="bytes, not"):
            here.restore(odd)
    assert here.snapshot() == before == kept, "what was to be replaced stays"
    here.restore(bytearray(kept))


def test_a_patient_in_fibrillation_can_be_saved_and_branched() -> None:
    here = gymnasium.make("ECGDrug-v0", world="oracle", hours=8).unwrapped
    here.reset(seed=3, options={"admission_fibrillation": 1.0, "baseline_burden": 0.9})
    assert bool(here.chart["pr_ms"].isnan().all())
    kept = here.snapshot()
    first = here.step(6)
    here.restore(kept)
    again = here.step(6)
    assert np.array_equal(first[0], again[0]) and first[1] == again[1]
    assert here.restore(kept) is not None and here.snapshot() == kept


def test_what_no_state_can_be_is_refused_though_its_checksum_is_right() -> None:
    here = env(2)
    kept = here.snapshot()
    names = [name for name, x in load(kept[MAGIC:]).items() if x.is_floating_point() and x.numel()]
    assert len(names) > 10 and here.restore(made_up(kept, lambda t: None)) is not None
    for name in names:
        # there is no PR in fibrillation
        for value in (float("nan"), float("inf"))[name == "chart.pr_ms" :]:
            with pytest.raises(SnapshotError, match=name):
                here.restore(made_up(kept, lambda t, name=name, value=value: t[name].view(-1)[-1:].fill_(value)))
    for change, words in (
        (lambda t: t.update(steps=t["steps"][:1]), "unlike numbers of patients"),
        (lambda t: t.update({n: x[:0] for n, x in t.items()}), "0 patients but there are 2"),
        (lambda t: t["steps"].fill_(-1), "steps is -1"),
        (lambda t: t.update(steps=t["steps"].int()), "another observation or another version"),
        (lambda t: t.pop("shown.row"), "another observation or another version"),
        (lambda t: t.update(extra=t["steps"]), "another observation or another version"),
        (lambda t: t.update({n: x.repeat_interleave(2, 0) for n, x in t.items()}), "4 patients but there are 2"),
    ):
        with pytest.raises(SnapshotError, match=words):
            here.restore(made_up(kept, change))
    assert here.snapshot() == kept


def test_a_snapshot_is_bound_to_what_its_numbers_mean_something_in() -> None:
    kept = env().snapshot()
    for other, what in (
        ({"noise": "ward"}, "noise: 'none' there, 'ward' here"),
        ({"missingness": "much"}, "missingness"),
        ({"observation": "latent"}, "observation"),
        ({"world": ToyWorld(hazard=0.0, cohort="long-qt")}, "cohort"),
    ):
        with pytest.raises(SnapshotError, match=f"another {what}"):
            env(**other).restore(kept)
    env(noise="none").restore(kept)


def test_a_snapshot_is_bound_to_the_weights() -> None:
    ward = gymnasium.make("EHRWard-v0", world="ehr-ward-small").unwrapped
    demo = gymnasium.make("EHRWard-v0", world="ehr-mimic-demo-small").unwrapped
    ward.reset(seed=1)
    kept = ward.snapshot()
    with pytest.raises(SnapshotError, match="another world: 'ehr-ward-small' there, 'ehr-mimic-demo-small' here"):
        demo.restore(kept)
    shared = catalog.load("ehr-ward-small")
    seal, shared.weights_sha256 = shared.weights_sha256, "0" * 64
    try:
        with pytest.raises(SnapshotError, match="another weights"):
            ward.restore(kept)
    finally:
        shared.weights_sha256 = seal
    ward.restore(kept)


def test_weights_that_were_never_saved_are_told_apart() -> None:
    class Tuned(ToyWorld, torch.nn.Module):
        def __init__(self) -> None:
            torch.nn.Module.__init__(self)
            ToyWorld.__init__(self, hazard=0.0)
            self.register_buffer("learned", torch.zeros(3))

    world = Tuned()
    here = env(world=world)
    kept = here.snapshot()
    here.restore(kept)
    world.learned[1] = 1e-6
    with pytest.raises(SnapshotError, match="another weights"):
        here.restore(kept)


def test_a_state_with_nan_is_not_saved() -> None:
    here = env()
    here.episodes.now.shown.row[0, 0] = float("nan")
    with pytest.raises(SnapshotError, match="shown.row holds nan"):
        here.snapshot()


def test_a_snapshot_of_an_earlier_version_is_named() -> None:
    old = save({"0000": torch.zeros(1)}, {"clinenv": json.dumps({"format": "clinenv-snapshot-1", "world": "toy"})})
    with pytest.raises(SnapshotError, match="earlier version.*take it anew"):
        env().restore(old)
