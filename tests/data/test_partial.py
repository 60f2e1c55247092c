"""Records with leads missing or lost are read with gaps, and made whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.clinenv.records import drawn_ecg, write_record
from world_models.data.ecg.partial import read_repaired, read_with_gaps
from world_models.data.ecg.wfdb.reader import RecordError, read_ecg
from world_models.ecg.lead_names import LEADS

FEW = ("I", "II", "V2", "V4", "V6")


@pytest.mark.parametrize("hz", [500.0, 1000.0])
def test_a_record_without_some_leads_is_made_whole(tmp_path, hz):
    path = write_record(tmp_path, order=FEW, hz=hz)
    with pytest.raises(RecordError):
        read_ecg(path)
    holed = read_with_gaps(path)
    assert holed.ecg_mv.shape == (12, 5000) and bool(holed.ecg_mv[LEADS.index("V3")].isnan().all())
    found = read_repaired(path)
    assert found.leads_made == ("V1", "V3", "V5") and found.recording.age_years == 61
    assert sum("reconstructed" in warning for warning in found.recording.warnings) == 3
    assert torch.isfinite(found.recording.ecg_mv).all()
    for name in FEW:
        i = LEADS.index(name)
        assert float((found.recording.ecg_mv[i] - holed.ecg_mv[i]).abs().max()) < 1e-4
    truth = torch.from_numpy(drawn_ecg(hz=500.0)[LEADS.index("V5")]).float()
    assert float(torch.corrcoef(torch.stack([found.recording.ecg_mv[LEADS.index("V5")], truth]))[0, 1]) > 0.9


def test_a_whole_record_is_as_it_was(tmp_path):
    path = write_record(tmp_path)
    found = read_repaired(path.with_suffix(".hea"))
    assert not found.leads_made and torch.equal(found.recording.ecg_mv, read_ecg(path).ecg_mv)


def test_what_cannot_be_made_whole(tmp_path):
    with pytest.raises(RecordError, match=r"1 whole lead\(s\)"):
        read_repaired(write_record(tmp_path, "one", order=("V2",)))
    flat = drawn_ecg()
    flat[:11] = 0.0
    with pytest.raises(RecordError, match=r"1 whole lead\(s\)"):
        read_repaired(write_record(tmp_path, "flat", flat))
    with pytest.raises(RecordError, match="does not exist"):
        read_repaired(tmp_path / "none")
    with pytest.raises(RecordError, match="at least 4 s"):
        read_repaired(write_record(tmp_path, "short", np.ascontiguousarray(drawn_ecg()[:, :1500])))
    with pytest.raises(ValueError, match="must both be above 0"):
        read_with_gaps(tmp_path / "one", 0.0)
