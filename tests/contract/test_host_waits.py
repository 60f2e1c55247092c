"""A step hardly ever waits for the device: on a GPU each number that Python looks at stops the stream of kernels.

Counted on the CPU, where the same calls are made: what reads a number out of a tensor (`item`, `bool`, `float`) and
what makes a shape of values (`nonzero`, an index of bools). architecture.md states the bounds.
"""

from __future__ import annotations

import collections
from typing import Any

import gymnasium
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import clinenv  # noqa: F401 - registers the ids
from world_models import catalog

READS = {"aten::_local_scalar_dense", "aten::is_nonzero", "aten::equal"}
SHAPES = {"aten::nonzero", "aten::masked_select", "aten::_unique2", "aten::unique_dim"}
INDICES = {"aten::index", "aten::index_put", "aten::index_put_"}

# Every step asks once whether its orders are within their bounds. Besides: the learned ward makes rows of who is asked
# for what; the clinic's oracle, whose chart is read off an ECG, counts months and draws rare beats for whom has them.
BOUNDS = {
    ("ECGDrug-v0", "oracle"): 1,
    ("ECGDrug-v0", "ecg-wm-small"): 1,
    ("ECGDrugContinuous-v0", "ecg-wm-small"): 1,
    ("EHRWard-v0", "oracle"): 1,
    ("EHRWardDose-v0", "oracle"): 1,
    ("EHRWard-v0", "ehr-ward-small"): 2,
    ("ECGProgression-v0", "oracle"): 10,
    ("ECGProgression-v0", "cardiac-jepa-small"): 1,
    ("ECGExplain-v0", "cardiac-jepa-small"): 1,
}


class Waits(TorchDispatchMode):
    """Counts them, by operation."""

    def __init__(self) -> None:
        super().__init__()
        self.found: collections.Counter[str] = collections.Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        name = function._schema.name
        by_bools = name in INDICES and any(i is not None and i.dtype == torch.bool for i in args[1])
        self.found[name] += name in READS or name in SHAPES or by_bools
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(("env_id", "world"), BOUNDS)
def test_a_step_waits_no_more_than_is_said(env_id: str, world: str) -> None:
    if world != "oracle" and not (catalog.weights_folder(world) / "model.safetensors").is_file():
        pytest.skip(f"world {world} has no weights here; train it first")
    env: Any = gymnasium.make_vec(
        env_id, num_envs=6, world=world, tensors=True, vectorization_mode="vector_entry_point"
    )
    env.reset(seed=0)
    env.action_space.seed(0)
    actions = torch.as_tensor(env.action_space.sample())
    env.step(actions)  # what is worked out once is there
    orders = env.unwrapped.episodes.interface.codec(actions, 6)
    with Waits() as waits:
        env.unwrapped.episodes.carry_out(orders)
    assert waits.found.total() <= BOUNDS[env_id, world], waits.found


def test_they_are_counted() -> None:
    x = torch.arange(4.0)
    with Waits() as waits:
        bool(x.any()), float(x[0]), x[x > 1], x.nonzero(), x + 1
    assert waits.found.total() == 4, waits.found
