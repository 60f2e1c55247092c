"""The learned world's belief: histories in, states out. Structure only; how good it is, the benchmarks measure."""

import pytest
import torch

from world_models import keys, tree
from world_models.ecg_wm import inference, latent
from world_models.ecg_wm.config import ECGWorldConfig
from world_models.ecg_wm.model import ECGWorldModel
from world_models.ecg_wm.patients import CLEARANCES, COVARIATES, patient_features
from world_models.ecg_wm.state import with_dose
from world_models.protocol import History
from world_models.quantities.ecg_drug import MEASURES

BATCH = 6


@pytest.fixture(scope="module")
def model() -> ECGWorldModel:
    torch.manual_seed(0)
    model = ECGWorldModel(ECGWorldConfig(beat_width=32))
    torch.nn.init.normal_(model.believe.outward[-1].weight, std=0.2)  # an encoder that has opinions
    torch.nn.init.normal_(model.prior.drift_out.weight, std=0.05)
    return model.eval().requires_grad_(False)


def course(model: ECGWorldModel, key: torch.Tensor, doses: torch.Tensor) -> tuple[list, list[dict]]:
    states = [model.initial(key)]
    for row in doses:
        states.append(model.transition(states[-1], row.expand(key.shape[0], -1)))
    return states, [model.observe(s) for s in states]


def history_of(charts: list[dict], doses: torch.Tensor, hours: float) -> History:
    count = charts[0]["hours"].shape[0]
    actions = torch.zeros(count, len(charts), 4)
    for i in range(len(charts) - 1):
        actions[:, i] = doses[i]
    times = (torch.arange(len(charts)) * hours).expand(count, -1)
    return History({n: torch.stack([c[n] for c in charts], 1) for n in charts[0]}, actions, times)


DOSES = torch.tensor([[0, 0.5, 0, 0], [0, 0, 0, 0], [0, 0.5, 80.0, 0]])


def test_inferred_state_shows_what_was_charted_last(model):
    _, charts = course(model, keys.from_seed(0, BATCH), DOSES)
    state = model.infer(history_of(charts, DOSES, 2.0), keys.from_seed(9, BATCH))
    seen = model.observe(state)
    assert torch.equal(seen["atrial_fibrillation"], charts[-1]["atrial_fibrillation"])
    sinus = seen["atrial_fibrillation"] == 0
    assert sinus.any()
    for name in ("qtcf_ms", "jt_peak_c_ms"):  # in fibrillation read back at a usual rate
        torch.testing.assert_close(seen[name][sinus], charts[-1][name][sinus], rtol=1e-3, atol=1e-2)
        torch.testing.assert_close(seen[name], charts[-1][name], rtol=0.0, atol=8.0)
    names = ("pr_ms", "heart_rate_bpm", "t_amplitude_uv", "arrhythmia_burden", "total_dose_mg", "hours", "clock_hour")
    for name in names:
        torch.testing.assert_close(seen[name], charts[-1][name], rtol=1e-3, atol=1e-2, equal_nan=True)
    assert torch.equal(state.t, torch.full((BATCH,), 3))


def test_replaying_the_log_is_living_through_it(model):
    states, _ = course(model, keys.from_seed(0, BATCH), DOSES)
    last = states[-1]
    again = inference.relive(model, last, last.unknown)
    torch.testing.assert_close(again.amounts, last.amounts, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(again.deviation, last.deviation, rtol=1e-3, atol=1e-4)


def test_rekey_keeps_the_chart_and_changes_the_unknown(model):
    states, charts = course(model, keys.from_seed(0, BATCH), DOSES)
    other = model.rekey(states[-1], keys.from_seed(77, BATCH))
    torch.testing.assert_close(model.observe(other)["qtcf_ms"], charts[-1]["qtcf_ms"], rtol=1e-4, atol=1e-2)
    assert not torch.equal(other.unknown, states[-1].unknown)


def test_a_missing_value_is_not_read(model):
    _, charts = course(model, keys.from_seed(0, BATCH), DOSES)
    history = history_of(charts, DOSES, 2.0)
    holes = {n: v.clone() for n, v in history.charts.items()}
    holes["pr_ms"][:, 1] = float("nan")
    state = model.infer(history._replace(charts=holes), keys.from_seed(9, BATCH))
    assert all(
        bool(torch.isfinite(leaf).all())
        for n, leaf in state._asdict().items()
        if isinstance(leaf, torch.Tensor) and n != "clearance"
    )
    holes["pr_ms"][:, 0] = float("nan")
    holes["atrial_fibrillation"][:, 0] = 0.0  # without a P wave, and not because the atria fibrillate
    with pytest.raises(ValueError, match="baseline_pr_ms"):
        model.infer(history._replace(charts=holes), keys.from_seed(9, BATCH))


def test_visits_must_be_in_order(model):
    _, charts = course(model, keys.from_seed(0, BATCH), DOSES)
    history = history_of(charts, DOSES, 2.0)
    with pytest.raises(ValueError, match="sort the visits"):
        model.infer(history._replace(hours=history.hours.flip(1)), keys.from_seed(9, BATCH))


def test_a_row_is_inferred_as_if_alone(model):
    _, charts = course(model, keys.from_seed(0, BATCH), DOSES)
    history = history_of(charts, DOSES, 2.0)
    key = keys.from_seed(9, BATCH)
    whole = model.infer(history, key)
    row = slice(2, 3)
    alone = model.infer(History(tree.take(history.charts, row), history.actions[row], history.hours[row]), key[row])
    for a, b in zip(tree.leaves(alone), tree.leaves(tree.take(whole, row)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4, equal_nan=True)


def test_the_dose_log_is_a_ring():
    log = torch.zeros(1, 3, 1)
    for t in range(5):
        log = with_dose(log, torch.tensor([t]), torch.full((1, 1), t + 1.0))
    # steps 2, 3 and 4 gave 3, 4 and 5; the place after the last is empty, so two are remembered
    assert sorted(log.flatten().tolist()) == [0.0, 4.0, 5.0]


def test_intervals_keep_their_identities():
    u = keys.normal(keys.from_seed(0, 50), 0, "u", (latent.COORDS,))
    fibrillating = torch.arange(50) % 2 == 1
    for chart in (latent.intervals_of(u), latent.intervals_of(u, fibrillating)):
        rr = 60 / chart["heart_rate_bpm"]
        parts = chart["qrs_ms"] + chart["jt_peak_ms"] + chart["tpeak_tend_ms"]
        torch.testing.assert_close(chart["qt_ms"], parts)
        torch.testing.assert_close(chart["qtcf_ms"], chart["qt_ms"] / rr ** (1 / 3))


def test_a_chart_gives_the_coordinates_that_its_rhythm_has():
    u = keys.normal(keys.from_seed(0, 50), 0, "u", (latent.COORDS,))
    fibrillating = torch.arange(50) % 2 == 1
    chart = latent.intervals_of(u, fibrillating) | {"atrial_fibrillation": fibrillating.to(torch.float32)}
    back = latent.standardise(chart)
    hidden = {"heart_rate_bpm": fibrillating, "pr_ms": fibrillating, "fibrillation_rate_bpm": ~fibrillating}
    for i, name in enumerate(latent.COORDINATES):
        lost = hidden.get(name, torch.zeros_like(fibrillating))
        assert torch.equal(back[:, i].isnan(), lost), name
        # J-Tpeak c is read back from QTcF at a usual rate: to a few ms
        near = 0.5 if name == "jt_peak_c_ms" else 1e-3
        torch.testing.assert_close(back[~lost, i], u[~lost, i], rtol=1e-3, atol=near)


def test_qtcf_in_fibrillation_is_that_of_sinus_rhythm():
    u = keys.normal(keys.from_seed(3, 50), 0, "u", (latent.COORDS,))
    sinus, other = latent.intervals_of(u), latent.intervals_of(u, torch.ones(50, dtype=torch.bool))
    torch.testing.assert_close(other["qtcf_ms"], sinus["qtcf_ms"])
    assert other["pr_ms"].isnan().all() and not torch.allclose(other["heart_rate_bpm"], sinus["heart_rate_bpm"])


def test_every_state_keeps_what_follows_from_the_rest_of_it(model):
    states, charts = course(model, keys.from_seed(2, BATCH), torch.tensor([[0.0, 0.5, 0.0, 0.0], [0.0] * 4]))
    last = states[-1]
    inferred = model.infer(history_of(charts, DOSES, 2.0), keys.from_seed(9, BATCH))
    for state in (*states, model.rekey(last, keys.fold(last.key, "other")), model.expected(last), inferred):
        who = dict(zip(COVARIATES, state.covariates.unbind(-1), strict=True))
        patient = patient_features(who | dict(zip(CLEARANCES, state.clearance.unbind(-1), strict=True)))
        assert torch.equal(state.rates.patient, patient)
        assert torch.equal(state.rates.anchor, model.anchor(state.measured, state.unknown))
        assert torch.equal(state.rates.eta, state.unknown[:, : model.config.eta])
        assert torch.equal(state.baseline_qtcf_ms, latent.intervals_of(state.measured)["qtcf_ms"])
        rhythm = state.present.fibrillating.to(torch.float32)  # of an ECG that was made, whatever key comes next
        again = model.settled(state, rhythm).present
        for kept, anew in zip(tree.leaves(state.present), tree.leaves(again), strict=True):
            torch.testing.assert_close(kept, anew, rtol=1e-5, atol=1e-5, equal_nan=True)


def test_even_the_corners_lie_within_the_charts_bounds():
    corners = torch.cartesian_prod(*[torch.tensor([-100.0, 100.0])] * latent.COORDS)
    for fibrillating in (None, torch.ones(len(corners), dtype=torch.bool)):
        chart = latent.intervals_of(corners, fibrillating)
        for quantity in MEASURES:
            if quantity.name in chart:
                value = chart[quantity.name]
                value = value[~value.isnan()]
                assert (value >= quantity.low).all() and (value <= quantity.high).all(), quantity
