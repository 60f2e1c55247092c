"""Bit for bit, on every processor: which kernels run in the worlds that promise it, and batches of odd sizes.

`make test-processors` runs the contract and the oracles' tests under each instruction set that torch can use here.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import MultiBinary
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import clinenv  # noqa: F401 - registers the ids
from tests.toy_progression import PROBE, ToyClinic
from tests.toy_ward import ToyWard
from tests.toy_world import ToyWorld
from world_models.oracles.progression.world import ProgressionOracle
from world_models.rounding import UNEVEN, expit, power, softplus

ROWS = 41
EVEN_EXPONENTS = (-2, -1, -0.5, 0.5, 1, 2, 3)

# The file that may use a kernel of its own order, and why.
EXCUSED = {"progression/state.py": "products of zeros and ones with multiples of 1/1024: exact in any order"}


class Told(ProgressionOracle):
    """The oracle's patients with their conditions for readings: its encoder's convolutions promise no bits."""

    measures = (*ProgressionOracle.measures, PROBE)

    def observe(self, state, also=()):
        chart = super().observe(state, ("ecg_mv",))
        ecg_mv = chart.pop("ecg_mv")
        return {**chart, "probe": chart["condition"] * 0.5 + ecg_mv[:, :1, 7].clamp(0.0, 0.5)}


NOISY = {"noise": "ward", "missingness": "much"}
# name -> id, arguments of `make_vec`; every world that promises a row's bits, through the whole of an environment
EXACT: dict[str, tuple[str, Callable[[], dict[str, Any]]]] = {
    "toy": ("ECGDrug-v0", lambda: {"world": ToyWorld(hazard=0.1), **NOISY}),
    "oracle": ("ECGDrug-v0", lambda: {"world": "oracle"}),
    "oracle, ECG": ("ECGDrug-v0", lambda: {"world": "oracle", "observation": "ecg"}),
    "oracle, any dose": ("ECGDrugContinuous-v0", lambda: {"world": "oracle", **NOISY}),
    "toy ward": ("EHRWard-v0", lambda: {"world": ToyWard(hazard=0.1), **NOISY}),
    "ward-oracle": ("EHRWard-v0", lambda: {"world": "ward-oracle"}),
    "ward-oracle, any dose": ("EHRWardDose-v0", lambda: {"world": "ward-oracle", **NOISY}),
    "toy clinic": ("ECGProgression-v0", lambda: {"world": ToyClinic()}),
    "clinic's patients": ("ECGProgression-v0", lambda: {"world": Told()}),
}


class Watch(TorchDispatchMode):
    """Notes every kernel of `UNEVEN` that runs, and which line asked for it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.split("::")[1].rstrip("_")
        even = name == "pow" and not isinstance(args[1], Tensor) and args[1] in EVEN_EXPONENTS
        if name in UNEVEN and not even:
            asked = [f for f in traceback.extract_stack() if "site-packages" not in f.filename][-2]
            if not any(asked.filename.endswith(name) for name in EXCUSED):
                self.found.add(f"{name} in {asked.filename}:{asked.lineno}: {asked.line}")
        return func(*args, **(kwargs or {}))


def course(name: str, rows: range, steps: int = 3) -> dict[str, np.ndarray]:
    """Observation, reward, end, truncation and infos of patients `rows`, step by step: all that a user sees."""
    env_id, arguments = EXACT[name]
    env = gymnasium.make_vec(env_id, len(rows), vectorization_mode="vector_entry_point", **arguments())
    luck = np.random.default_rng(5)
    seen = [env.reset(seed=[100 + i for i in rows])]
    for _ in range(steps):
        unit = luck.random((ROWS, *env.single_action_space.shape))[rows.start : rows.stop]
        seen.append(env.step(scaled(env.single_action_space, unit)))
    env.close()
    return numbers(seen)


def scaled(space: gymnasium.Space, unit: np.ndarray) -> np.ndarray:
    """Actions of a space from numbers in (0, 1)."""
    if isinstance(space, gymnasium.spaces.Box):
        return (space.low + unit * (space.high - space.low)).astype(space.dtype)
    most = 2 if isinstance(space, MultiBinary) else getattr(space, "nvec", getattr(space, "n", None))
    return np.minimum(unit * most, np.asarray(most) - 1).astype(space.dtype)


def numbers(found: Any, path: str = "") -> dict[str, np.ndarray]:
    """All arrays of numbers, with a row a patient, in nested tuples and dicts."""
    if isinstance(found, np.ndarray) and found.dtype != object:
        return {path: found}
    parts = found.items() if isinstance(found, Mapping) else enumerate(found) if isinstance(found, tuple | list) else ()
    return {place: x for name, part in parts for place, x in numbers(part, f"{path}/{name}").items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", EXACT)
def test_no_kernel_that_rounds_by_the_batch(name: str) -> None:
    with Watch() as watch:
        course(name, range(5))
    assert not watch.found, "these kernels round a row by the size of its batch:\n" + "\n".join(sorted(watch.found))


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", EXACT)
def test_a_row_of_an_odd_batch_is_the_same_patient(name: str, threads: int) -> None:
    """41 rows fill two vectors of sixteen and leave nine over; other sizes leave others."""
    torch.set_num_threads(threads)
    whole = course(name, range(ROWS))
    for rows in (range(3), range(24, ROWS), range(ROWS - 1, ROWS)):
        part = course(name, rows)
        assert part.keys() <= whole.keys()  # an info that concerns none of these rows is not there
        for place, some in part.items():
            np.testing.assert_array_equal(some, whole[place][rows.start : rows.stop], err_msg=place)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_even_forms_are_even_and_right(dtype: torch.dtype) -> None:
    x = torch.linspace(-30, 30, 1009, dtype=dtype)
    forms = {
        "power": lambda x: power(x.abs(), 0.58),
        "powers": lambda x: power(x.abs(), x / 30),
        "expit": expit,
        "softplus": softplus,
    }
    for form in forms.values():
        whole = form(x)
        for size in (1, 3, 7, 16, 17, 33):
            assert torch.equal(torch.cat([form(part) for part in x.split(size)]), whole)
    torch.testing.assert_close(power(x.abs(), 0.58), x.abs().pow(0.58))
    torch.testing.assert_close(expit(x), torch.sigmoid(x))
    torch.testing.assert_close(softplus(x), torch.nn.functional.softplus(x, threshold=100.0))
    assert float(power(torch.zeros(1), 0.0)) == 1.0


def test_the_watch_sees_a_power() -> None:
    with Watch() as watch:
        torch.ones(3).pow(1.7)
        torch.ones(3).pow(2)
    assert len(watch.found) == 1
