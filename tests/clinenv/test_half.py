"""`dtype=`: a learned world's products of matrices in half precision, and nothing else of it."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

import clinenv  # noqa: F401  (registers the ids)
from clinenv import compiled
from clinenv.envs.ecg_drug.task import ECGDrugTask
from clinenv.envs.ecg_explain.task import ECGExplainTask
from clinenv.simulator import Simulator
from tests.clinenv.test_ehr_replay import stay
from world_models import catalog, half, keys, tree
from world_models.cardiac_jepa.explain import ExplainWorld

LEARNED = {
    "ECGDrug-v0": "ecg-wm-small",
    "EHRWard-v0": "ehr-ward-small",
    "ECGProgression-v0": "cardiac-jepa-small",
    "ECGExplain-v0": "cardiac-jepa-small",
}
HALVES = ("bfloat16", "float16")


def _course(env: gymnasium.vector.VectorEnv, steps: int) -> tuple[Any, list[Any]]:
    env.action_space.seed(0)
    first, _ = env.reset(seed=0)
    return first, [env.step(env.action_space.sample()) for _ in range(steps)]


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("env_id", LEARNED)
def test_what_comes_out_is_float32_and_near(env_id: str, dtype: str) -> None:
    made = [
        gymnasium.make_vec(env_id, num_envs=16, vectorization_mode="vector_entry_point", **given)
        for given in ({}, {"dtype": dtype})
    ]
    (_, whole), (_, halved) = (_course(env, 3) for env in made)
    for env in made:
        env.close()
    (x, *_), (y, *_) = whole[0], halved[0]
    for a, b in zip(*(tree.leaves({"": torch.as_tensor(np.asarray(v))}) for v in (x, y)), strict=True):
        assert a.dtype == b.dtype
    assert not np.array_equal(whole[-1][0], halved[-1][0]), "half precision changed nothing"
    # a draw near its threshold may fall otherwise: most numbers of the first step are near
    apart = np.abs(np.asarray(x, float) - np.asarray(y, float))
    assert np.mean(apart <= 0.02 * (1 + np.abs(np.asarray(x, float)))) > 0.95
    assert np.isfinite(np.asarray(halved[-1][1])).all()


@pytest.mark.parametrize("name", sorted(set(LEARNED.values())))
def test_a_world_in_half_precision_leaves_the_other_alone(name: str) -> None:
    before = catalog.load(name)
    halved, again = catalog.load(name, dtype="bfloat16"), catalog.load(name)
    assert again is before and before.dtype == "float32" and halved.dtype == "bfloat16"
    assert catalog.load(name, dtype="bfloat16") is halved and catalog.load(name, dtype="float32") is before
    mine, theirs = (dict(world.named_parameters()) for world in (before, halved))
    assert all(mine[key] is theirs[key] for key in mine), "weights are shared"
    key = keys.from_seed(3, 8)
    state = tree.leaves((before.initial(key), halved.initial(key)))
    for x, y in zip(state[: len(state) // 2], state[len(state) // 2 :], strict=True):
        assert torch.equal(x.nan_to_num(-1.0), y.nan_to_num(-1.0)), "patients begin in the same state"
    nothing = torch.zeros(8, len(before.orders))
    moved = halved.transition(halved.initial(key), nothing)
    assert all(x.dtype not in (torch.bfloat16, torch.float16) for x in tree.leaves(moved))
    for out in (halved.spread(moved), halved.observe(moved)):
        assert all(value.dtype == torch.float32 for value in out.values())


def test_half_is_refused_where_it_was_not_measured() -> None:
    for env_id in ("ECGDrug-v0", "EHRWard-v0", "ECGProgression-v0"):
        with pytest.raises(ValueError, match="float32 alone"):
            gymnasium.make(env_id, world="oracle", dtype="bfloat16")
    with pytest.raises(ValueError, match="choose 'float32', 'bfloat16', 'float16'"):
        gymnasium.make("ECGDrug-v0", dtype="float8")
    with pytest.raises(ValueError, match="choose 'float32'"):
        catalog.load("ecg-wm-small", dtype=16)  # type: ignore[arg-type]
    world = catalog.load("ecg-wm-small")
    with pytest.raises(ValueError, match="load your own in it"):
        gymnasium.make("ECGDrug-v0", world=world, dtype="bfloat16")
    own = gymnasium.make("ECGDrug-v0", world=catalog.load("ecg-wm-small", dtype="bfloat16"), dtype="bfloat16")
    assert own.unwrapped.world.dtype == "bfloat16"  # type: ignore[attr-defined]


def test_replay_and_ensembles_take_it() -> None:
    env: Any = gymnasium.make("EHRReplay-v0", stays=[stay(1), stay(2)], dtype="bfloat16").unwrapped
    assert env.world.dtype == "bfloat16"
    both = catalog.load("ensemble:ehr-ward-small,ehr-mimic-demo-small", dtype="float16")
    assert [member.dtype for member in both.members] == ["float16", "float16"]  # type: ignore[attr-defined]


def test_gradients_pass() -> None:
    world = catalog.load("ecg-wm-small", dtype="bfloat16")
    simulator = Simulator(world, ECGDrugTask(), grad=True)
    state, chart = simulator.reset(keys.from_seed(0, 4))
    dose = torch.full((4, len(world.orders)), 0.1, requires_grad=True)
    simulator.step(state, chart, dose).reward.sum().backward()
    assert dose.grad is not None and bool(torch.isfinite(dose.grad).all()) and float(dose.grad.abs().sum()) > 0


@pytest.mark.compiles
@pytest.mark.skipif(compiled.cxx_compiler() is None, reason="no C++ compiler")
def test_compiled_steps_keep_the_precision(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(compiled.CACHE_VARIABLE, str(tmp_path))
    key = keys.from_seed(0, 8)
    outs = {}
    for dtype in ("float32", "bfloat16"):
        world = ExplainWorld(catalog.load("cardiac-jepa-small", dtype=dtype))
        task = ECGExplainTask(codes=world.codes)
        order = torch.zeros(8, len(world.orders))
        order[:, 1] = 1.0
        for fast in (False, True):
            simulator = Simulator(world, task, compile=fast)
            out = simulator.step(*simulator.reset(key), order)
            outs[dtype, fast] = out.state.z_now
    assert torch.allclose(outs["bfloat16", False], outs["bfloat16", True], atol=2e-2)
    assert not torch.equal(outs["float32", True], outs["bfloat16", True]), "another library"


def test_what_is_no_tensor_stays() -> None:
    class World:
        dtype, device, name = "bfloat16", "cpu", "toy"

    found = half.run(World(), lambda: {"a": (torch.ones(2, dtype=torch.bfloat16), 3.0), "b": None})
    assert found["a"][0].dtype == torch.float32 and found["a"][1] == 3.0 and found["b"] is None
    World.dtype = torch.float16  # type: ignore[assignment]  # as somebody's own module may have it
    assert half.run(World(), lambda: torch.ones(1, dtype=torch.float16)).dtype == torch.float16
