"""The learned world's tables: dispatch, what they refuse, and their pure parts on cases with known answers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.ecg_drug import abnormal_beats, diffusion_bench, fidelity, missing_leads, rollout
from benchmarks.ecg_drug.chart_stages import Budget, normal_residual
from benchmarks.ecg_drug.diffusion_scores import SAMPLES, scores
from benchmarks.ecg_drug.held_out_drug import alone, give_t_wave_effects, most_alike, peak_level, predicted_effects
from benchmarks.ecg_drug.oracle_patients import history_of, one_dose, particles_of, sinus_patients
from benchmarks.ecg_drug.own_beats import beat_factors, beat_of
from benchmarks.ecg_drug.risk_aversion import Forecast, chosen_orders, menu
from world_models import keys
from world_models.ecg_wm import latent
from world_models.ecg_wm.config import SMALL
from world_models.ecg_wm.courses import dosing, sample_courses
from world_models.ecg_wm.model import ECGWorldModel
from world_models.ecg_wm.pairs import canonical_beat
from world_models.quantities.drugs import ANTIARRHYTHMICS
from world_models.quantities.ecg_drug import DRUGS


@pytest.fixture(scope="module")
def untrained() -> ECGWorldModel:
    torch.manual_seed(0)
    return ECGWorldModel(SMALL)


# ---- the command


def test_every_table_names_a_module_and_unknown_ones_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for module, _ in fidelity.TABLES.values():
        assert (Path(fidelity.__file__).parent / f"{module}.py").is_file()
    assert fidelity.main(["--table", "nonsense"]) == 2
    assert "nonsense: choose of 1, 2, 3, ood" in capsys.readouterr().err
    assert fidelity.main(["--table"]) == 2


def test_a_table_is_handed_its_own_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(diffusion_bench, "main", lambda argv: seen.append(argv) or 0)
    assert fidelity.main(["--table", "prior", "--work", "somewhere"]) == 0
    assert seen == [["--parts", "prior", "mismatch", "--work", "somewhere"]]


@pytest.mark.parametrize(
    ("table", "arguments"),
    [
        ("leads", ["--world", "oracle"]),
        ("rollout", ["--world", "nowhere"]),
        ("lambda", ["--risk", "nowhere"]),
        ("drugs", ["--record", "nowhere"]),
        ("ood", ["--world", "oracle", "--work", "work"]),
        ("epk", ["--world", "oracle", "--work", "work"]),
        ("morphology", ["--ludb", "nowhere"]),
    ],
)
def test_what_cannot_be_used_gives_status_2_and_writes_nothing(
    table: str,
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    out = ["--out", str(tmp_path / "out")]
    assert fidelity.main(["--table", table, *arguments, *out]) == 2
    assert "error: " in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.csv"))


def test_numbers_out_of_bounds_end_with_status_2() -> None:
    for main, arguments in (
        (missing_leads.main, ["--lost", "7"]),
        (diffusion_bench.main, ["--work", "w", "--scale", "0"]),
        (rollout.main, ["--patients", "3"]),
        (abnormal_beats.main, []),
    ):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2


# ---- courses without a drug, on another fit


def test_a_drug_withheld_is_never_given_and_the_rest_is_as_it_was() -> None:
    key = keys.from_seed(1, 400)
    whole, without = dosing(key, 24, 2.0), dosing(key, 24, 2.0, ("dofetilide",))
    column = DRUGS.index("dofetilide")
    assert whole[..., column].sum() > 0 and without[..., column].sum() == 0
    others = [i for i in range(len(DRUGS)) if i != column]
    assert torch.equal(whole[..., others], without[..., others])
    with pytest.raises(ValueError, match="no drug aspirin to withhold"):
        dosing(key, 24, 2.0, ("aspirin",))


def test_courses_can_be_of_some_cohorts() -> None:
    young = sample_courses(keys.from_seed(2, 64), 2, 2.0, ("healthy",) * 3 + ("typical",), known=0.0)
    age = young.charts["age_years"][:, 0]
    assert (age[:48] < 40).all() and (age[48:] > 40).float().mean() > 0.5
    assert young.clearance.isnan().all()


def test_a_normal_residual_has_the_autoregressions_size(untrained: ECGWorldModel) -> None:
    world = normal_residual(untrained, 2.0).with_options(cohort="healthy")
    state = world.initial(keys.from_seed(3, 3000))
    still = state._replace(residual=torch.zeros_like(state.residual))
    after = world.transition(still, torch.zeros(3000, len(DRUGS)))
    expected = untrained.log_noise.exp() * (1 - torch.exp(-2 * 2.0 / untrained.log_memory.exp())).sqrt()
    torch.testing.assert_close(after.residual.std(0), expected.detach(), rtol=0.06, atol=0.0)
    assert torch.equal(after.shape, state.first_shape + (after.deviation @ world.residual.follow))


def test_a_budget_refuses_what_cannot_train() -> None:
    assert Budget.of(80, 32) == Budget(80, 10, 10, 32)
    for wrong in ({"dynamics": 0}, {"batch": 4}):
        with pytest.raises(ValueError, match="give"):
            Budget(**wrong)


# ---- a drug that nobody took


def test_the_prior_alone_makes_of_a_drug_what_its_block_foretells() -> None:
    world = alone("dofetilide").with_options(cohort="healthy")
    column, effects = DRUGS.index("dofetilide"), predicted_effects("dofetilide")
    state = world.initial(keys.from_seed(4, 16))
    dose = torch.zeros(16, len(DRUGS))
    dose[:, column] = ANTIARRHYTHMICS[column].trial_dose_mg
    moved = []
    for step in range(6):
        state = world.transition(state, dose if step == 0 else torch.zeros_like(dose))
        moved.append(state.deviation)
    place = latent.COORDINATES.index("jt_peak_c_ms")
    peak = torch.stack(moved).amax(0)[:, place] * latent.SCALE[place]
    assert peak.mean().item() == pytest.approx(effects["jt_peak_c_ms"], rel=0.1)
    assert torch.stack(moved)[..., latent.COORDINATES.index("heart_rate_bpm")].abs().max() < 1e-5


def test_a_t_wave_by_class_goes_with_the_ratio_of_the_blocks(untrained: ECGWorldModel) -> None:
    prior = untrained.prior
    give_t_wave_effects(prior, "dofetilide")
    others = {n: predicted_effects(n)["tpeak_tend_ms"] for n in DRUGS if n != "dofetilide"}
    donor = max(others, key=lambda n: others[n])
    share = predicted_effects("dofetilide")["tpeak_tend_ms"] / others[donor]
    place = latent.COORDINATES.index("t_amplitude_uv")
    to, of = DRUGS.index("dofetilide"), DRUGS.index(donor)
    at_peak = [prior.slope[i, 0, place].item() * peak_level(prior, i) for i in (to, of)]
    assert at_peak[0] == pytest.approx(share * at_peak[1], rel=1e-3)
    assert most_alike("dofetilide")[0] != "dofetilide"


# ---- lambda, leads, kinds, scores


def test_a_larger_lambda_takes_the_surer_order_and_a_drug_without_benefit_is_none() -> None:
    names, orders = menu()
    assert names[0] == "nothing" and orders[0].sum() == 0 and ((orders[1:] > 0).sum(-1) == 1).all()
    risk = torch.tensor([[[0.0, 0.0]], [[0.0, 0.2]], [[0.14, 0.16]]])  # [C, B, P]: mean 0.1 and wide, 0.15 and narrow
    burden = torch.tensor([[[0.5, 0.5]], [[0.3, 0.3]], [[0.3, 0.3]]])
    assert chosen_orders(Forecast(risk, burden), 0.0).tolist() == [1]
    assert chosen_orders(Forecast(risk, burden), 2.0).tolist() == [2]
    assert chosen_orders(Forecast(risk, burden[:1].expand(3, -1, -1)), 0.0).tolist() == [0]


def test_ratios_are_of_patients_known_in_both() -> None:
    value, reference = torch.tensor([2.0, 4.0, torch.nan, 5.0]), torch.tensor([1.0, 2.0, 3.0, torch.nan])
    middle, low, high = missing_leads.ratio(value, reference)
    assert middle == pytest.approx(2.0) and low == pytest.approx(2.0) and high == pytest.approx(2.0)


def test_the_kind_of_an_ecg() -> None:
    assert abnormal_beats.kinds_of_ptbxl({"NORM": 100.0, "SR": 0.0}) == {"normal"}
    assert abnormal_beats.kinds_of_ptbxl({"NORM": 50.0}) == set()
    assert abnormal_beats.kinds_of_ptbxl({"CLBBB": 100.0, "LVH": 0.0}) == {"conduction", "hypertrophy"}
    row = {"Rhythms": "Sinus rhythm", "Ischemia": "Stemi: lateral wall"}
    assert abnormal_beats.kinds_of_ludb(row) == {"infarction"}
    assert abnormal_beats.kinds_of_ludb({"Rhythms": "Sinus rhythm"}) == {"normal"}
    assert abnormal_beats.kinds_of_ludb({"Rhythms": "Atrial fibrillation"}) == set()
    assert abnormal_beats.kinds_of_ludb(row | {"Cardiac pacing": "P-synchrony"}) == set()


def test_scores_of_samples_of_the_truth() -> None:
    key = keys.from_seed(5, 600)
    drawn = torch.stack([keys.normal(keys.fold(key, n), 0, "sample", (3,)) for n in range(SAMPLES)])
    seen = keys.normal(key, 0, "seen", (3,))
    told = scores(drawn, seen, torch.ones(3))
    assert told["coverage"] == pytest.approx(0.902, abs=0.03)
    assert told["mae_of_median_low"] < told["mae_of_median"] < told["mae_of_median_high"]
    assert told["mae_of_median"] == pytest.approx((2 / torch.pi) ** 0.5, abs=0.05)


# ---- patients and their beats


def test_patients_are_in_sinus_rhythm_and_a_world_is_shown_their_beat(untrained: ECGWorldModel) -> None:
    oracle, state = sinus_patients(6, 12, 2.0)
    chart = oracle.observe(state)
    assert (chart["atrial_fibrillation"] < 0.5).all() and chart["pr_ms"].isfinite().all()
    drug, doses = one_dose(state.key, 4)
    assert ((doses > 0).sum((1, 2)) == 1).all() and torch.equal(doses[:, 0].argmax(-1) + 1, drug)
    assert history_of(chart).actions.shape == (12, 1, len(DRUGS))
    beat = canonical_beat(chart, state.morphology)
    read = beat_factors(untrained, beat)
    torch.testing.assert_close(untrained.vae.shape(read["shape"]) + read["residual"], beat)
    many = particles_of(untrained, chart, state.key, 2, read)
    seen = untrained.observe(many)
    own = beat_of(untrained, many, seen)
    assert own.shape == (24, 8, 200) and own.isfinite().all()
    torch.testing.assert_close(own[::2], own[1::2])  # the admission ECG is known: no particle sees another
