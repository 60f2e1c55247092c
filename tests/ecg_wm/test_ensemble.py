"""Several learned worlds as one: each keeps its own guess of the same patient, and they are compared."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import gymnasium
import pytest
import torch

import clinenv  # noqa: F401
from agents.planning.objective import ReturnAndCost
from agents.planning.risk import WorstMember
from clinenv.envs.ecg_drug.task import ECGDrugTask
from clinenv.simulator import Simulator
from clinenv.testing import check_env, check_simulator
from world_models import catalog, checkpoint, ensemble, keys, tree
from world_models.ecg_wm.finetune import FineTuning, fine_tuned
from world_models.ecg_wm.members import bootstrapped, main, pools_of
from world_models.ecg_wm.model import KIND, ECGWorldModel
from world_models.protocol import HasMembers, History, LearnedWorld, SplitsSpread, TellsFates
from world_models.testing import check_world

DOFETILIDE = torch.tensor([0.0, 0.5, 0.0, 0.0])


def member(factor: float, name: str = "other") -> ECGWorldModel:
    """The shipped world with drugs that act `factor` times as strongly."""
    world = copy.deepcopy(catalog.load("ecg-wm-small"))
    world.prior.slope.mul_(factor)
    world.name, world.weights_sha256 = name, None
    return world


@pytest.fixture(scope="module")
def three() -> ensemble.Ensemble:
    return ensemble.of([member(factor, f"times {factor}") for factor in (0.5, 1.0, 1.5)])


def after(world, count: int = 60, steps: int = 3, key: torch.Tensor | None = None):
    state = world.initial(keys.from_seed(4, count) if key is None else key)
    for t in range(steps):
        state = world.transition(state, DOFETILIDE.expand(count, -1) * (t == 0))
    return state


@pytest.mark.slow
def test_it_is_a_world_and_keeps_the_rules(three) -> None:
    for protocol in (LearnedWorld, HasMembers, SplitsSpread, TellsFates):
        assert isinstance(three, protocol)
    check_world(three, relative=1e-4, absolute=2e-3)
    check_simulator(Simulator(three, ECGDrugTask()), exact=False)
    check_env(lambda **options: gymnasium.make("ECGDrug-v0", world=three, **options))
    assert three.graded_orders == catalog.load("ecg-wm-small").graded_orders


def test_every_patient_lives_in_one_member_as_he_would_in_it_alone(three) -> None:
    key = keys.from_seed(4, 60)
    together = after(three, key=key)
    chart = three.observe(together)
    assert set(together.member.tolist()) == {0, 1, 2}
    for m, world in enumerate(three.members):
        rows = together.member == m
        alone = world.observe(after(world, int(rows.sum()), key=key[rows]))
        for name, value in alone.items():
            torch.testing.assert_close(chart[name][rows], value, rtol=1e-4, atol=2e-3, equal_nan=True)


def test_all_members_follow_what_was_shown(three) -> None:
    """Each state shows the same chart, under the doses given, and puts down to chance what its own law does not say."""
    together = after(three)
    own = three.observe(together)
    for m, world in enumerate(three.members):
        chart, state = world.observe(together.states[m]), together.states[m]
        for name in ("qtcf_ms", "heart_rate_bpm", "torsades", "hours", "total_dose_mg", "atrial_fibrillation"):
            torch.testing.assert_close(chart[name], own[name], rtol=1e-4, atol=2e-3)
        torch.testing.assert_close(
            state.rates.anchor + state.deviation + state.residual, state.present.u, rtol=1e-4, atol=1e-4
        )
    qtcf = [
        world.foretold(state)["qtcf_ms"].mean() for world, state in zip(three.members, together.states, strict=True)
    ]
    assert qtcf[0] + 3 < qtcf[1] and qtcf[1] + 3 < qtcf[2], "the stronger the drug, the longer QT is foretold"


def test_members_are_drawn_anew_by_rekey_and_what_was_charted_stays(three) -> None:
    together = after(three, 200)
    before = three.observe(together)
    other = three.rekey(together, keys.from_seed(99, 200))
    assert 0.5 < float((other.member != together.member).float().mean()) < 0.85
    shown = three.observe(other)
    for name in ("qtcf_ms", "hours", "arrhythmia_burden"):
        torch.testing.assert_close(shown[name], before[name], rtol=1e-4, atol=5e-3)
    moved = other._replace(key=keys.from_seed(7, 200))
    assert not torch.equal(
        three.observe(three.transition(moved, torch.zeros(200, 4)))["qtcf_ms"],
        three.observe(three.transition(other, torch.zeros(200, 4)))["qtcf_ms"],
    ), "a key that was replaced is another luck in every member"
    counts = three.initial(keys.from_seed(0, 3000)).member.bincount()
    assert bool(((counts - 1000).abs() < 100).all())


def test_disagreement_grows_with_the_drug_and_is_in_the_spread(three) -> None:
    calm = three.initial(keys.from_seed(4, 60))
    dosed = after(three, steps=2)
    assert float(three.disagreement(dosed)["qtcf_ms"].mean()) > 5 + float(three.disagreement(calm)["qtcf_ms"].mean())
    parts, apart = three.spread_parts(dosed)["qtcf_ms"], three.disagreement(dosed)["qtcf_ms"]
    own = torch.stack(
        [w.spread_parts(s)["qtcf_ms"].epistemic for w, s in zip(three.members, dosed.states, strict=True)]
    )
    torch.testing.assert_close(parts.epistemic.square(), own.square().mean(0) + apart.square(), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(three.spread(dosed)["qtcf_ms"], parts.spread)
    twins = ensemble.of([member(1.0, "a"), member(1.0, "b")])
    assert float(twins.disagreement(after(twins))["qtcf_ms"].max()) < 1e-2


def test_it_infers_in_every_member_and_planners_see_the_members(three) -> None:
    charts, state = [], three.initial(keys.from_seed(4, 8))
    for t in range(3):
        charts.append(three.observe(state))
        state = three.transition(state, DOFETILIDE.expand(8, -1) * (t == 0))
    record = History(
        {name: torch.stack([chart[name] for chart in charts], 1) for name in charts[0]},
        torch.stack([DOFETILIDE.expand(8, -1), torch.zeros(8, 4), torch.zeros(8, 4)], 1),
        torch.tensor([0.0, 2.0, 4.0]).expand(8, -1),
    )
    believed = three.infer(record, keys.from_seed(5, 8))
    # of an ECG in fibrillation QTcF is read at a usual rate, to a few ms
    torch.testing.assert_close(three.observe(believed)["qtcf_ms"], charts[-1]["qtcf_ms"], rtol=0.0, atol=6.0)
    sim = Simulator(three, ECGDrugTask())
    plans = torch.zeros(8, 2, 6, 4)
    plans[:, 1, :3, 1] = 1.0
    imagined = sim.imagine(believed, sim.world.observe(believed), plans, particles=48)
    assert imagined.members is not None and imagined.members.shape == (8, 48)
    worst = ReturnAndCost(WorstMember())(imagined)
    assert bool((worst <= imagined.returns.mean(-1) + 1e-4).all())
    strongest = torch.where((imagined.members == 2).unsqueeze(1), imagined.returns, torch.nan).nanmean(-1)
    same = (worst[:, 1] - strongest[:, 1]).abs() < 1e-4
    assert float(same.float().mean()) > 0.5, "of the heavy plan the strong drug is mostly the worst"


def test_gradients_and_fates_pass_through(three) -> None:
    sim = Simulator(three, ECGDrugTask(), grad=True, events="expected", pessimism={"kind": "mopo"})
    state, chart = sim.reset(keys.from_seed(4, 5))
    plans = torch.zeros(5, 1, 4, 4)
    plans[:, 0, 0, 1] = 0.5
    plans.requires_grad_()
    returns = sim.imagine(state, chart, plans, particles=6).returns.mean(-1)
    (slope,) = torch.autograd.grad(returns.sum(), plans)
    up, down = (plans.detach() + torch.zeros(4).index_fill(0, torch.tensor(1), by) for by in (0.004, 0.0))
    with torch.no_grad():
        a, b = (sim.imagine(state, chart, x, particles=6).returns.mean(-1) for x in (up, down))
    torch.testing.assert_close(slope[..., 1].sum(-1), (a - b) / 0.004, rtol=0.1, atol=0.05)


def test_the_catalogue_makes_one_of_names_and_folders(tmp_path: Path) -> None:
    base = catalog.load("ecg-wm-small")
    config = {"kind": KIND, **dataclasses.asdict(dataclasses.replace(base.config, name="stronger"))}
    checkpoint.save_checkpoint(tmp_path / "stronger", member(1.2).state_dict(), config, "# a card")
    name = f"ensemble:ecg-wm-small,{tmp_path / 'stronger'}"
    world = catalog.load(name)
    assert catalog.load(name) is world and world.name == "ensemble of ecg-wm-small, stronger"
    assert len(world.weights_sha256) == 64
    env = gymnasium.make("ECGDrug-v0", world=name).unwrapped
    env.reset(seed=1)
    env.step(4)
    saved = env.snapshot()
    again = gymnasium.make("ECGDrug-v0", world=name).unwrapped
    again.restore(saved)
    assert again.step(0)[1] == env.step(0)[1]
    with pytest.raises(ValueError, match="world"):
        gymnasium.make("ECGDrug-v0", world="ecg-wm-small").unwrapped.restore(saved)


def test_what_is_no_ensemble_is_refused(tmp_path: Path) -> None:
    base = catalog.load("ecg-wm-small")
    for name, words in (
        ("ensemble:ecg-wm-small", "at least two members"),
        ("ensemble:ecg-wm-small,ecg-wm-small", "several different worlds"),
        ("ensemble:ecg-wm-small,", "several different worlds"),
        ("ensemble:ecg-wm-small,no-such", "unknown world 'no-such'"),
        ("ensemble:ecg-wm-small,oracle", "cannot follow what another world shows"),
        ("ensemble:cardiac-jepa-small,oracle", "cannot follow what another world shows"),
        ("ensemble:ecg-wm-small,ehr-ward-small", "differ in their measures"),
    ):
        with pytest.raises(ValueError, match=words):
            catalog.load(name)
    with pytest.raises(ValueError, match="bears a seal of its own"):
        catalog.load("ensemble:ecg-wm-small,other", sha256="0" * 64)
    with pytest.raises(ValueError, match="differ in their hours_per_step"):
        ensemble.of([base, base.with_options(hours_per_step=1.0)])


@pytest.mark.slow
def test_members_are_made_from_resamples_and_a_killed_run_goes_on(tmp_path: Path, capsys) -> None:
    pools = pools_of(16, 0)
    one, other = bootstrapped(pools, 0, 0), bootstrapped(pools, 0, 1)
    assert not torch.equal(one[0].measured, other[0].measured)
    assert torch.equal(one[0].measured, one[1].measured), "the same patients in every pool"
    arguments = ["--out", str(tmp_path), "--members", "2", "--patients", "16", "--steps", "2", "--threads", "1"]
    assert main(arguments) == 0
    name = capsys.readouterr().out.strip()
    assert name == f"ensemble:{tmp_path / 'member-0'},{tmp_path / 'member-1'}"
    world = catalog.load(name)
    base = catalog.load("ecg-wm-small")
    assert float(world.disagreement(after(world))["qtcf_ms"].mean()) > 0.01
    for made in world.members:
        assert torch.equal(made.vae.state_dict()["decoder.0.weight"], base.vae.state_dict()["decoder.0.weight"])
        assert not torch.equal(made.prior.slope, base.prior.slope)
    sums = [checkpoint.sha256(tmp_path / f"member-{i}") for i in range(2)]
    for file in (tmp_path / "member-1").glob("*.*"):
        file.unlink()  # as if the run had been killed before the second was finished
    assert main(arguments) == 0
    assert [checkpoint.sha256(tmp_path / f"member-{i}") for i in range(2)] == sums
    assert main([*arguments[:-2], "--world", "ehr-ward-small"]) == 2
    assert "of another kind" in capsys.readouterr().err


@pytest.mark.slow
def test_fine_tuning_leaves_its_model_alone_and_learns_from_the_courses(tmp_path: Path) -> None:
    """Of patients whose drug acts half as strongly the fitted world foresees less than the one it came from."""
    base = catalog.load("ecg-wm-small")
    kept = tree.map_leaves(torch.clone, dict(base.state_dict()))
    pool = pools_of(48, 3)[0]
    weak = pool._replace(u=pool.u[:, :1] + 0.3 * (pool.u - pool.u[:, :1]))
    tuned = fine_tuned(base, [weak], FineTuning(steps=8, event_steps=1, batch=32, learning_rate=6e-3), tmp_path)
    for name, value in base.state_dict().items():
        assert torch.equal(value, kept[name])
    rise = [
        float((s.rates.anchor + s.deviation - s.measured)[:, 3:5].mean())
        for s in (after(w, 200) for w in (base, tuned))
    ]
    assert rise[1] < 0.9 * rise[0]
    assert tuned.weights_sha256 is None and not tuned.prior.slope.requires_grad
