"""Compiled steps: equal to eager ones within rounding, made once a shape, and never in anybody's way."""

from __future__ import annotations

import copy
import pickle
import warnings
from pathlib import Path
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
import torch

import clinenv  # noqa: F401  (registers the ids)
from clinenv import compiled
from clinenv.codec import codec_of
from clinenv.compiled import Compiled, CompileError
from clinenv.env import ClinicalEnv
from clinenv.envs.ecg_drug.task import MENU, SINGLE_DOSE_MG, ECGDrugTask
from clinenv.envs.ecg_progression.task import LEVELS
from clinenv.envs.ehr_ward.orders import DOSES, SWITCHES
from clinenv.fingerprint import fingerprint
from clinenv.simulator import Simulator
from tests.toy_world import ToyWorld
from world_models import keys, tree
from world_models.loops import repeated
from world_models.quantities import ecg_drug, progression, ward

NEAR = 1e-4  # relative to 1 or to the number, whichever is more: what compiled code promises of a course
NEAR_STEP = 1e-5  # of one step from the same state
needs_compiler = pytest.mark.skipif(compiled.cxx_compiler() is None, reason="no C++ compiler")


@pytest.fixture(scope="module")
def libraries(tmp_path_factory):
    """A folder of compiled code that no other test knows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(compiled.CACHE_VARIABLE, str(tmp_path_factory.mktemp("compiled")))
        yield


def _alike(x: np.ndarray, y: np.ndarray, near: float) -> bool:
    x, y = np.asarray(x, float), np.asarray(y, float)
    return x.shape == y.shape and np.allclose(x, y, rtol=near, atol=near, equal_nan=True)


def _same_course(eager: gymnasium.Env, fast: gymnasium.Env, steps: int, seed: int = 0) -> None:
    """Both meet the same patients and the same orders for so many steps, resets between them."""
    eager.action_space.seed(seed)
    shown = [env.reset(seed=seed) for env in (eager, fast)]
    for _ in range(steps):
        (x, *x_ends, x_info), (y, *y_ends, y_info) = ((*out[:-1], out[-1]) for out in shown)
        assert _alike(x, y, NEAR) and x.dtype == y.dtype
        assert list(x_info) == list(y_info)
        for name, value in x_info.items():
            assert type(value) is type(y_info[name]) and _alike(value, y_info[name], NEAR), name
        if x_ends:
            assert _alike(x_ends[0], y_ends[0], NEAR) and x_ends[1:] == y_ends[1:]
            assert all(type(a) is type(b) for a, b in zip(x_ends, y_ends, strict=True))
        if x_ends and (x_ends[1] or x_ends[2]):
            shown = [env.reset() for env in (eager, fast)]
            continue
        action = eager.action_space.sample()
        shown = [env.step(action) for env in (eager, fast)]


def _toy(**arguments) -> ClinicalEnv:
    return ClinicalEnv(ECGDrugTask(), ToyWorld(), noise="clinic", missingness="some", **arguments)


@pytest.mark.slow
@needs_compiler
def test_one_patient_compiled_is_the_same_patient(libraries, capfd):
    eager, fast = _toy(), _toy(compile=True)
    before = compiled.counts()
    _same_course(eager, fast, 200)
    after = compiled.counts()
    assert after.compiled == before.compiled + 1, "one library a shape, made at the first step"
    assert "compiling one patient of ECGDrug in toy" in capfd.readouterr().err

    # what else holds the episodes sees the step, and is seen by the next
    for env in (eager, fast):
        env.reset(seed=3)
        env.step(1)
    assert tree.batch_size(fast.state) == 1 and fast.refusals() == eager.refusals() == []
    assert all(_alike(fast.chart[name], value, NEAR) for name, value in eager.chart.items())
    assert _alike(fast.episodes.given, eager.episodes.given, 0.0)
    snapshot = fast.snapshot()
    first = fast.step(2)
    twin, sent = copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))
    for env in (fast, twin, sent):
        env.restore(snapshot)
        again = env.step(2)
        assert np.array_equal(again[0], first[0]) and again[1:4] == first[1:4]
    assert not np.shares_memory(again[0], first[0])
    eager.step(2)
    assert _alike(fast.step(np.int64(3))[0], eager.step(3)[0], NEAR)
    fast.reset(options={"age_years": 70.0})
    assert fast.step(1)[0][0] == pytest.approx((70.0 - 60.0) / 20.0)
    with pytest.raises(ValueError, match="outside the menu"):
        fast.step(99)
    assert compiled.counts().compiled == after.compiled, "nothing is compiled after the first step"


@pytest.mark.slow
@needs_compiler
def test_a_batch_compiled_is_the_same_batch(libraries):
    world, task = ToyWorld(), ECGDrugTask()
    eager, fast = Simulator(world, task), Simulator(world, task, compile=True)
    state, chart = eager.reset(keys.from_seed(0, 8))
    action = torch.tensor([[0.0, 0.25, 0.0, 0.0]]).expand(8, 4)
    counts = None
    for _ in range(4):
        slow, quick = eager.step(state, chart, action), fast.step(state, chart, action)
        counts = counts or compiled.counts()
        for x, y in zip(tree.leaves(slow._replace(refused=None)), tree.leaves(quick), strict=True):
            assert x.dtype == y.dtype and _alike(x, y, NEAR_STEP)
        assert list(slow.terms) == list(quick.terms) and quick.state.key is state.key
        state, chart = slow.state, slow.chart
    latent = fast.step(state, {**chart, "latent": world.observe(state, ("latent",))["latent"]}, action, ("latent",))
    assert _alike(latent.chart["latent"], eager.step(state, chart, action, ("latent",)).chart["latent"], NEAR_STEP)
    assert compiled.counts() == counts
    with pytest.raises(ValueError, match="outside"):
        fast.step(state, chart, torch.full((8, 4), -1.0))
    assert pickle.loads(pickle.dumps(fast)).compile


def test_a_damaged_library_is_made_again(monkeypatch, tmp_path, capfd):
    file = tmp_path / "cache" / "step.pt2"
    made = []

    def write(where, *_):
        made.append(where)
        where.write_bytes(b"whole")

    def load(path):
        if Path(path).read_bytes() != b"whole":
            raise RuntimeError("no archive")
        return SimpleNamespace(loader=SimpleNamespace(boxed_run=path))

    monkeypatch.setattr(compiled, "_write", write)
    monkeypatch.setattr(torch._inductor, "aoti_load_package", load)
    monkeypatch.setattr(compiled, "cxx_compiler", lambda: "c++")
    file.parent.mkdir()
    file.write_bytes(b"tor")
    assert compiled._runner(file, lambda: None, "a step", {}) == str(file) and made == [file]
    assert "is damaged; it is made again" in capfd.readouterr().err
    compiled._loaded.cache_clear()
    file.write_bytes(b"")
    assert compiled._runner(file, lambda: None, "a step", {}) == str(file) and len(made) == 2


def test_without_a_compiler_steps_are_eager_and_it_is_said_once(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv(compiled.CACHE_VARIABLE, str(tmp_path / "none"))
    compiled._say_no_compiler.cache_clear()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for seed in (0, 1):
            _same_course(_toy(), _toy(compile=True), 30, seed)
    assert sum("no C++ compiler" in str(one.message) for one in said) == 1
    assert not (tmp_path / "none").exists()


class _Branching(ToyWorld):
    """Looks at values, as no graph can."""

    def transition(self, state, action):
        return super().transition(state, action) if bool((action > 0).any()) else super().transition(state, action * 1)


@needs_compiler
def test_what_cannot_be_compiled_is_refused_and_says_what_to_do(libraries):
    with pytest.raises(ValueError, match="compile=True passes no gradients"):
        Simulator(ToyWorld(), ECGDrugTask(), grad=True, compile=True)
    with pytest.raises(ValueError, match="compile"):
        _toy(compile="yes")
    env = ClinicalEnv(ECGDrugTask(), _Branching(), compile=True)
    env.reset(seed=0)
    with pytest.raises(CompileError, match="leave compile=False"):
        env.step(0)
    eager = ClinicalEnv(ECGDrugTask(), _Branching())  # what was kept while tracing does no harm
    eager.reset(seed=0)
    eager.step(0)


def test_a_name_tells_what_is_built_alike_from_what_is_not():
    def weights(seed: int) -> torch.nn.Module:
        torch.manual_seed(seed)
        return torch.nn.GRU(3, 2)

    assert fingerprint(ToyWorld(), ECGDrugTask()) == fingerprint(ToyWorld(), ECGDrugTask())
    assert fingerprint(ToyWorld()) != fingerprint(ToyWorld(hazard=0.5))
    assert fingerprint(weights(0)) == fingerprint(copy.deepcopy(weights(0))) != fingerprint(weights(1))
    assert fingerprint(ToyWorld()).foreign and not fingerprint(ECGDrugTask(), weights(0)).foreign
    with pytest.raises(TypeError, match="generator"):
        fingerprint([one for one in ((x for x in "ab"),)])


def test_a_compiled_function_keeps_its_description_alone():
    function = Compiled(torch.exp, "exp", (1,))
    assert pickle.loads(pickle.dumps(function)).what == "exp"


@pytest.mark.parametrize("name", ["menu", "doses", "amounts", "levels", "switches", "ward doses"])
def test_a_plain_action_means_the_same_by_the_shorter_way(name):
    from clinenv.task import Doses

    actions, orders, unit = {
        "menu": (MENU, ecg_drug.ORDERS, "scaled"),
        "doses": (Doses(SINGLE_DOSE_MG), ecg_drug.ORDERS, "scaled"),
        "amounts": (Doses(SINGLE_DOSE_MG), ecg_drug.ORDERS, "mg"),
        "levels": (LEVELS, progression.ORDERS, "scaled"),
        "switches": (SWITCHES, ward.ORDERS, "scaled"),
        "ward doses": (DOSES, ward.ORDERS, "scaled"),
    }[name]
    codec = codec_of(actions, orders, unit, torch.device("cpu"))
    codec.space.seed(0)
    for _ in range(50):
        action = codec.space.sample()
        short = codec.single(action)
        assert short is not None and torch.equal(short, codec([action], 1))
    for odd in (None, "a", 1.5, np.full(3, np.nan), [action], torch.as_tensor(action)):
        assert codec.single(odd) is None


@pytest.mark.compiles
@needs_compiler
def test_what_goes_into_a_loop_as_it_is_stays_the_callers(libraries):
    def moved(x: torch.Tensor, row: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        held = row[0, 0:7].view(1, 7)  # as states lie in a row of memory
        return repeated(times, lambda i, y, h: (torch.where(h, y + i, y),), (x,), (held,))[0]

    code = Compiled(moved, "a loop", (1,))
    row, x = torch.arange(7).view(1, 7) % 2 == 0, torch.zeros(1, 7, dtype=torch.int64)
    for times in (1, 4, 30, 4):  # an argument that each round frees ends the process
        given = torch.tensor(times)
        assert torch.equal(code(x, row, given), moved(x, row, given))


@pytest.mark.compiles
@needs_compiler
@pytest.mark.parametrize(
    ("id_", "world"),
    [
        ("ECGDrug-v0", "ecg-wm-small"),
        ("ECGDrug-v0", "oracle"),
        ("ECGDrugContinuous-v0", "ecg-wm-small"),
        ("ECGDrugContinuous-v0", "oracle"),
        ("ECGProgression-v0", "cardiac-jepa-small"),
        ("ECGProgression-v0", "oracle"),
    ],
)
def test_every_id_compiled_is_the_same(id_, world):
    eager = gymnasium.make(id_, world=world).unwrapped
    fast = gymnasium.make(id_, world=world, compile=True).unwrapped
    _same_course(eager, fast, 2)
    counts = compiled.counts()
    _same_course(eager, fast, 200, seed=1)
    assert compiled.counts() == counts, "nothing is compiled after the first step"


def test_the_cache_is_where_it_is_asked_for(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    monkeypatch.delenv(compiled.CACHE_VARIABLE, raising=False)
    assert compiled.cache_folder() == Path("/somewhere/clinenv/compiled")
    monkeypatch.setenv(compiled.CACHE_VARIABLE, "/else")
    assert compiled.cache_folder() == Path("/else")
