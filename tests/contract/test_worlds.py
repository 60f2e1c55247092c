"""The contract of a world, a task and a simulator, on every world there is; and that the checks can fail."""

from __future__ import annotations

import pytest
import torch

from clinenv.envs.ecg_drug.task import SINGLE_DOSE_MG, ECGDrugTask
from clinenv.simulator import Simulator
from clinenv.task import Doses, Menu
from clinenv.testing import check_simulator, check_task
from tests.contract.worlds import ALSO, EXACTNESS, world_named
from tests.toy_world import ToyWorld
from world_models import keys
from world_models.testing import check_world


@pytest.mark.parametrize("name", EXACTNESS)
def test_world(name: str) -> None:
    relative, absolute = EXACTNESS[name]
    check_world(world_named(name), relative=relative, absolute=absolute, also=ALSO[name])


@pytest.mark.parametrize("name", EXACTNESS)
@pytest.mark.parametrize("task", [ECGDrugTask(), ECGDrugTask(actions=Doses(SINGLE_DOSE_MG))], ids=["menu", "doses"])
def test_simulator_and_task(name: str, task: ECGDrugTask) -> None:
    world = world_named(name)
    check_task(task, world)
    check_simulator(Simulator(world, task), exact=EXACTNESS[name] == (0.0, 0.0))


class Impure(ToyWorld):
    def transition(self, state, action):
        state.on_board.mul_(0.5)
        return super().transition(state, action)


class Global(ToyWorld):
    def observe(self, state, also=()):
        torch.rand(1)
        return super().observe(state, also)


class OutOfBounds(ToyWorld):
    def observe(self, state, also=()):
        return {**super().observe(state, also), "qt_ms": state.patient[:, 0] * 0 + 2000.0}


class BatchNorm(ToyWorld):
    def observe(self, state, also=()):
        chart = super().observe(state, also)
        return {**chart, "pr_ms": (chart["pr_ms"] * 0.9 + chart["pr_ms"].mean() * 0.1).clamp(60, 600)}


class Deaf(ToyWorld):
    def rekey(self, state, key):
        return state._replace(key=key, t=state.t)

    def _intervals(self, state):
        return super()._intervals(state._replace(key=torch.zeros_like(state.key)))

    def transition(self, state, action):
        return super().transition(state._replace(key=torch.zeros_like(state.key)), action)._replace(key=state.key)


class Cuts(ToyWorld):
    def transition(self, state, action):
        return super().transition(state, action.real.clamp(0.0, 1.0).nan_to_num())


class DrawsTheUnknown(ToyWorld):
    def initial(self, key, factors=None):
        return super().initial(key, {n: v for n, v in (factors or {}).items() if not bool(v.isnan().any())})


class HalfAWoman(ToyWorld):
    def initial(self, key, factors=None):
        return super().initial(key, {n: v.round() if n == "sex_female" else v for n, v in (factors or {}).items()})


class IgnoresFactors(ToyWorld):
    def initial(self, key, factors=None):
        known = {q.name for q in self.factors}
        return super().initial(key, {n: v for n, v in (factors or {}).items() if n in known})


class IgnoresAlso(ToyWorld):
    def observe(self, state, also=()):
        return super().observe(state, [name for name in also if name in {q.name for q in self.measures}])


class SaysKeyError(ToyWorld):
    def observe(self, state, also=()):
        try:
            return super().observe(state, also)
        except ValueError as error:
            raise KeyError(str(error)) from None


@pytest.mark.parametrize(
    ("world", "words"),
    [
        (Cuts, "_mg=-5 mg, outside 0 to .* was taken"),
        (DrawsTheUnknown, "age_years=nan a, outside 18 to 100 was taken"),
        (HalfAWoman, "sex_female=0.5 bool, outside 0 to 1 was taken"),
        (IgnoresFactors, "factor no_such_name was taken"),
        (IgnoresAlso, "also=.'no_such_name',. was taken"),
        (SaysKeyError, "ended in KeyError"),
        (Impure, "in place"),
        (Global, "global generator"),
        (OutOfBounds, "leaves"),
        (BatchNorm, "beside others"),
        (Deaf, "same future"),
    ],
)
def test_the_check_finds_a_broken_world(world: type, words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        check_world(world())


class FullOfNaN(ECGDrugTask):
    def cost(self, before, action, after):
        return super().cost(before, action, after) * torch.nan


class LooksAtTheOthers(ECGDrugTask):
    def cost(self, before, action, after):
        return super().cost(before, action, after) + (after["qtcf_ms"] > after["qtcf_ms"].mean())


@pytest.mark.parametrize(("task", "words"), [(FullOfNaN, "finite"), (LooksAtTheOthers, "same patient alone")])
def test_the_check_finds_a_broken_task(task: type, words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        check_task(task(), ToyWorld())


def test_a_task_and_a_world_that_do_not_fit_are_told_so() -> None:
    world = ToyWorld()
    world.orders = world.orders[:2]
    with pytest.raises(ValueError, match="names and their order must agree"):
        Simulator(world, ECGDrugTask())
    with pytest.raises(ValueError, match="aspirin_mg"):
        Simulator(ToyWorld(), ECGDrugTask(actions=Menu((("aspirin", {"aspirin_mg": 1.0}),))))


def test_imagine_pays_nothing_after_the_end_and_discounts() -> None:
    world = ToyWorld(hazard=50.0)  # torsades for certain once QTcF is long
    simulator = Simulator(world, ECGDrugTask())
    key = keys.from_seed(1, 4)
    state, chart = simulator.reset(key, {"baseline_qtcf_ms": torch.full((4,), 500.0)})
    plan = torch.zeros(4, 1, 30, 4)
    told = simulator.imagine(state, chart, plan, particles=8)
    assert bool(told.terminated.all())
    assert bool((told.returns > -35).all()), "torsades is paid once"
    state, chart = Simulator(ToyWorld(hazard=0.0), ECGDrugTask()).reset(key)
    calm = Simulator(ToyWorld(hazard=0.0), ECGDrugTask())
    one = calm.imagine(state, chart, plan[:, :, :1], particles=1)
    two = calm.imagine(state, chart, plan[:, :, :2], particles=1)
    half = calm.imagine(state, chart, plan[:, :, :2], particles=1, discount=0.5)
    torch.testing.assert_close(half.returns, one.returns + 0.5 * (two.returns - one.returns))


def test_imagine_never_sees_the_luck_to_come() -> None:
    """No particle is simulated with a patient's own key, and each has one of its own that its candidates share."""

    class Watched(ToyWorld):
        def rekey(self, state, key):
            used.append(key)
            return super().rekey(state, key)

    used: list[torch.Tensor] = []
    simulator = Simulator(Watched(), ECGDrugTask())
    state, chart = simulator.reset(keys.from_seed(9, 64))
    imagined = simulator.imagine(state, chart, torch.zeros(64, 2, 3, 4), particles=16, chunk=500)
    luck = torch.cat(used).reshape(64, 16)
    assert not bool(torch.isin(luck, state.key).any()) and len(luck.unique()) == 64 * 16
    # two equal plans meet the same 16 lucks, and the lucks differ (all but where the toy's noise is lost in rounding)
    assert torch.equal(imagined.returns[:, 0], imagined.returns[:, 1])
    assert (imagined.returns[:, 0].std(-1) > 0).float().mean() > 0.9
