"""The coverage benchmark, small: halves that share no patient, bands that cover on the half that judges."""

from __future__ import annotations

import pytest
import torch

from benchmarks.ecg_drug.coverage import HOURS, MEASURES, observe_bands, parts_table, tables
from world_models import catalog
from world_models.oracles.ecg_drug.cohorts import COHORTS
from world_models.quantities.ecg_drug import DRUGS


@pytest.fixture(scope="module")
def model() -> object:
    return catalog.load("ecg-wm-small")


@pytest.mark.slow
def test_calibrated_bands_cover_on_patients_of_their_own(model: object) -> None:
    with torch.no_grad():
        bands = observe_bands(model, patients=16, samples=24)
    count = len(COHORTS) * len(DRUGS) * 2 * 16 * len(HOURS)
    assert all(len(part[n]) == count for part in (bands.low, bands.high, bands.observed) for n in MEASURES)
    assert float(bands.kept.float().mean()) == 0.5
    rows, extremes = tables(model, bands)
    whole = {r["calibration"]: r for r in rows if r["by"] == "everything"}
    assert whole["none"]["all_measures"] < 0.88, "of 24 particles the raw band is too narrow"
    assert set(whole) == {"none", "world", "all", "drug", "drug, sex, cohort"}
    for kind in ("all", "drug"):
        # of 576 patients on either side a share of 0.9 has a standard deviation of 0.018
        assert all(0.825 < whole[kind][n] < 0.975 for n in MEASURES), kind
        assert whole[kind]["all_measures"] == pytest.approx(0.9, abs=0.03)
    assert {r["group"] for r in rows if r["by"] == "drug"} == set(DRUGS)
    assert len(extremes) == 5 * len(MEASURES) and all(e["lowest"] <= e["median"] <= e["highest"] for e in extremes)


def test_parts_add_up_in_variance(model: object) -> None:
    for row in parts_table(model, 4):
        for how in ("", "quick_"):
            whole, parts = row[f"{how}spread"], (row[f"{how}epistemic"], row[f"{how}aleatoric"])
            assert whole**2 == pytest.approx(sum(part**2 for part in parts), rel=1e-4)
        assert row["spread"] ** 2 == pytest.approx(row["epistemic"] ** 2 + row["aleatoric"] ** 2, rel=1e-4)
