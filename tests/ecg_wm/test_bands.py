"""Bands kept with the weights, and the two parts of a spread: what calibration fits, and what asks for it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from clinenv.commands.simulate.command import calibrated
from world_models import catalog, checkpoint, keys
from world_models.ecg_wm import band_calibration
from world_models.ecg_wm.band_calibration import calibrate_bands, calibrate_chance
from world_models.ecg_wm.bands import BAND_OF, GROUPS, LARGEST_MG, group_of, over_a_course
from world_models.ecg_wm.chance import chance_sd, split
from world_models.ecg_wm.latent import CENTRE, COORDINATES, COORDS, SCALE, intervals_of
from world_models.ecg_wm.model import KIND, SPREAD_OF, ECGWorldModel
from world_models.ecg_wm.state import Present
from world_models.oracles.ecg_drug.world import ECGDrugOracle
from world_models.protocol import CalibratesBands, SplitsSpread, Treated
from world_models.uncertainty import decompose


@pytest.fixture(scope="module")
def world() -> ECGWorldModel:
    return catalog.load("ecg-wm-small")


@pytest.fixture
def own(world):
    """The world with buffers of its own, so that a test may write into them."""
    model = ECGWorldModel(world.config)
    model.load_state_dict(world.state_dict())
    return model.eval().requires_grad_(False)


def test_groups_are_a_drug_a_dose_and_a_sex() -> None:
    assert GROUPS[group_of(Treated("dofetilide", 0.5, True))] == "dofetilide/full/women"
    assert GROUPS[group_of(Treated("verapamil", 80.0, False))] == "verapamil/half/men"
    assert GROUPS[group_of(Treated("ranolazine", 1500.0, False))] == "ranolazine/full/men"
    assert group_of(Treated("dofetilide", female=True)) == -1, "of an unknown dose"
    assert GROUPS[group_of(Treated("nothing", female=False))] == "nothing/men"
    assert group_of(Treated()) == group_of(Treated("aspirin", 1.0, True)) == group_of(Treated("dofetilide", 0.5)) == -1


def test_a_band_is_corrected_by_its_group_and_the_rest_is_left_alone(own) -> None:
    own.band_shift.zero_()
    row = BAND_OF.index("qtcf_ms")
    own.band_shift[row] = 0.5
    own.band_shift[row, group_of(Treated("dofetilide", 0.5, True))] = 1.0
    low, high = torch.tensor([400.0, 410.0]), torch.tensor([420.0, 410.0])
    wide = own.calibrated("qtcf_ms", low, high, Treated("dofetilide", 0.5, True))
    assert wide[0].tolist() == pytest.approx([390.0, 410.0]) and wide[1].tolist() == pytest.approx([430.0, 410.0])
    assert own.calibrated("qtcf_ms", low, high, Treated("dofetilide", 0.5, False))[0][0] == 395.0
    assert own.calibrated("qtcf_ms", low, high)[0][0] == 395.0
    assert own.calibrated("no_measure", low, high)[0] is low
    gap = own.calibrated("qtcf_ms", low * torch.nan, high)
    assert bool(gap[0].isnan().all()) and bool(gap[1].isnan().all()), "what is not there has no band"
    own.band_shift[row] = -3.0
    median = np.array([402.0, 410.0])
    ends = calibrated(own, "qtcf_ms", low.numpy(), median, high.numpy(), Treated())
    assert (ends[0] <= median).all() and (ends[1] >= median).all(), "the median stays inside"
    assert isinstance(own, CalibratesBands) and not isinstance(ECGDrugOracle(), CalibratesBands)


@pytest.mark.slow
def test_calibrated_bands_cover_new_patients(own) -> None:
    """Whatever the model: 90 % of the visits of patients that the calibration never met, in every measure."""
    own.spread_scale.fill_(1.0)
    found = calibrate_bands(own, patients=640, samples=24)
    assert len(found) == len(BAND_OF) and bool((own.band_shift.std(1) > 0).all()), "groups differ"
    assert bool(torch.isfinite(own.band_shift).all())
    key = keys.from_seed(31_000_000_000, 96)
    group, charts, particles = band_calibration._courses(own, key, 0, 24)
    real, seen = (band_calibration._judged(c, own.hours_per_step) for c in (charts, particles))
    shares = []
    for name in BAND_OF:
        several = torch.stack([chart[name] for chart in seen[name]]).unflatten(1, (96, 24))
        low, high = several.nanquantile(torch.tensor([0.05, 0.95]), dim=-1)
        ends = [own.calibrated(name, low[:, i], high[:, i], _who(int(g))) for i, g in enumerate(group.tolist())]
        low, high = (torch.stack([e[place] for e in ends], 1) for place in (0, 1))
        y = torch.stack([chart[name] for chart in real[name]])
        known = ~(y.isnan() | low.isnan())
        shares.append(float(((y >= low) & (y <= high))[known].float().mean()))
    assert 0.86 < sum(shares) / len(shares) < 0.94
    assert min(shares) > 0.78


def _who(group: int) -> Treated:
    drug, *dose, sex = GROUPS[group].split("/")
    mg = LARGEST_MG[drug] * (1.0 if dose == ["full"] else 0.5) if dose else None
    return Treated(drug, mg, sex == "women")


def test_figures_of_a_course_leave_out_what_was_not_there() -> None:
    nan = float("nan")
    charts = [
        {
            "qtcf_ms": torch.tensor(q), "pr_ms": torch.tensor(p), "heart_rate_bpm": torch.tensor(r),
            "arrhythmia_burden": torch.tensor(b), "baseline_qtcf_ms": torch.tensor([400.0, 410.0]),
        }
        for q, p, r, b in (
            ([480.0, 410.0], [300.0, nan], [30.0, 90.0], [1.0, 1.0]),
            ([430.0, 405.0], [160.0, nan], [70.0, 95.0], [0.5, 1.0]),
            ([450.0, 400.0], [nan, nan], [60.0, 85.0], [0.3, 0.0]),
        )
    ]  # fmt: skip
    found = over_a_course(charts)
    assert found["peak_qtcf_ms"].tolist() == [450.0, 405.0] and found["rise_qtcf_ms"].tolist() == [50.0, -5.0]
    assert found["peak_pr_ms"][0] == 160.0 and bool(found["peak_pr_ms"][1].isnan())
    assert found["least_heart_rate_bpm"].tolist() == [60.0, 85.0]
    assert found["mean_arrhythmia_burden"].tolist() == pytest.approx([0.4, 0.5])


def test_chance_is_the_charts_own_derivative() -> None:
    """The delta method beside finite differences of the head, in sinus rhythm."""
    u = (0.5 * keys.normal(keys.from_seed(0, 32), 0, "u", (COORDS,))).double()
    log_noise = torch.linspace(-2.0, -1.0, COORDS).double()
    still = torch.zeros(32, dtype=torch.bool)
    present = Present(u, intervals_of(u, still), u, u, still, u[:, 0])
    found = chance_sd(present, log_noise)
    assert set(SPREAD_OF) <= set(found)
    for name in SPREAD_OF:
        slopes = torch.autograd.functional.jacobian(lambda x, name=name: intervals_of(x, still)[name].sum(), u)
        exact = (slopes * log_noise.exp()).square().sum(-1).sqrt()
        torch.testing.assert_close(found[name], exact, rtol=1e-6, atol=1e-9)
    assert len(CENTRE) == len(SCALE) == len(COORDINATES)


def test_parts_add_up_and_chance_is_never_more_than_all() -> None:
    whole = {"qtcf_ms": torch.tensor([5.0, 5.0])}
    parts = split(whole, {"qtcf_ms": torch.tensor([1.5, 4.0])}, torch.tensor([2.0]))["qtcf_ms"]
    assert parts.aleatoric.tolist() == [3.0, 5.0] and parts.epistemic.tolist() == [4.0, 0.0]


@pytest.mark.parametrize("name", ["oracle", "ecg-wm-small"])
def test_info_tells_the_two_apart(name: str) -> None:
    from clinenv.envs.ecg_drug.env import ECGDrugEnv, ECGDrugVectorEnv

    world = catalog.load(name)
    assert isinstance(world, SplitsSpread)
    env = ECGDrugVectorEnv(6, world=world)
    env.reset(seed=0)
    info = env.step([3] * 6)[-1]
    names = [n.removeprefix("spread_") for n in info if n.startswith("spread_")]
    assert set(SPREAD_OF) <= set(names)
    for measure in names:
        whole, epistemic, chance = (info[f"{kind}_{measure}"] for kind in ("spread", "epistemic", "aleatoric"))
        assert np.allclose(whole**2, epistemic**2 + chance**2, rtol=1e-4), measure
        assert (chance > 0).all() and (epistemic == 0).all() if name == "oracle" else (epistemic >= 0).all(), measure
    alone = ECGDrugEnv(world=world, uncertainty=False)
    alone.reset(seed=0)
    assert not any(n.startswith(("spread_", "epistemic_", "aleatoric_")) for n in alone.step(3)[-1])


def test_the_quick_split_is_that_of_nested_particles_on_the_whole(own) -> None:
    """200 patients that the calibration never met, a day on dofetilide: chance within a fifth of the exact way's."""
    calibrate_chance(own)
    key = keys.from_seed(32_000_000_000, 200)
    state = own.initial(key, {"baseline_burden": torch.zeros(200)})
    doses = torch.zeros(12, 4)
    doses[::6, 1] = 0.5
    exact = decompose(own, state, doses, key, SPREAD_OF, patients=8, chances=4)
    quick = []
    for dose in doses:
        state = own.transition(state, dose.expand(200, -1))
        quick.append(
            {n: chance * s for (n, chance), s in zip(_chance(own, state).items(), own.chance_scale, strict=True)}
        )
    for n in SPREAD_OF:
        whole = torch.stack([q[n] for q in quick], 1).square().mean().sqrt()
        assert float(whole / exact[n].aleatoric.square().mean().sqrt()) == pytest.approx(1.0, abs=0.2), n


def _chance(model, state):
    found = chance_sd(state.present, model.log_noise)
    return {n: found[n] for n in SPREAD_OF}


def test_the_seal_covers_the_calibration(own, tmp_path) -> None:
    config = {"kind": KIND, **dataclasses.asdict(own.config)}
    one = checkpoint.save_checkpoint(tmp_path / "a", own.state_dict(), config, "# a\n")
    own.band_shift += 0.01
    other = checkpoint.save_checkpoint(tmp_path / "b", own.state_dict(), config, "# b\n")
    assert one != other
    again = ECGWorldModel.load(tmp_path / "b")
    assert torch.equal(again.band_shift, own.band_shift) and again.weights_sha256 == other
