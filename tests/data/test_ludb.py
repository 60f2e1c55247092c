from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from world_models.data.ecg import ludb
from world_models.data.ecg.diagnoses import ludb_labels
from world_models.data.ecg.wfdb.reader import RecordError
from world_models.ecg.lead_names import LEADS

DATA = Path(os.environ.get("CLINENV_DATA", Path(__file__).resolve().parents[2] / "../shared/data")) / "ludb"
needs_ludb = pytest.mark.skipif(not (DATA / "ludb.csv").is_file(), reason=f"no LUDB at {DATA} (set CLINENV_DATA)")


def _beats(text: str, samples=None):
    symbols = list(text)
    return ludb.pair_marks(samples or [40 * i for i in range(len(symbols))], symbols)


def test_pairing_of_full_beats():
    beats = _beats("(N)(t)(p)(N)(t)")
    assert beats.qrs_peak.tolist() == [40, 400]
    assert np.isnan(beats.p_onset[0]) and beats.p_onset[1] == 240 and beats.p_offset[1] == 320
    assert beats.qrs_onset.tolist() == [0, 360] and beats.qrs_offset.tolist() == [80, 440]
    assert beats.t_onset.tolist() == [120, 480] and beats.t_peak.tolist() == [160, 520]
    assert beats.t_offset.tolist() == [200, 560]


def test_pairing_survives_missing_and_doubled_marks():
    beats = _beats("(pN)(t(p)N)t)")  # P without offset, QRS and T without onset, T without offset
    assert np.isnan(beats.p_offset[0]) and np.isnan(beats.qrs_onset[0]) and np.isnan(beats.t_offset[0])
    assert beats.t_onset[0] == 160 and beats.p_onset[1] == 240
    assert np.isnan(beats.qrs_onset[1]) and np.isnan(beats.t_onset[1]) and beats.t_offset[1] == 480
    doubled = _beats("(N)((tt))", [0, 20, 40, 100, 102, 150, 152, 200, 204])
    assert (doubled.t_onset[0], doubled.t_peak[0], doubled.t_offset[0]) == (100, 150, 204)
    paced = _beats("N()(t)")  # the peak on the spike, before the onset
    assert (paced.qrs_onset[0], paced.qrs_offset[0], paced.t_peak[0]) == (40, 80, 160)
    assert len(_beats("(p)(t)").qrs_peak) == 0


def test_last_p_before_the_qrs_counts():
    beats = _beats("(N)(t)(p)(p)(N)(t)")
    assert beats.p_peak[1] == 400


def test_absent_folder_and_record(tmp_path):
    with pytest.raises(RecordError, match="no ludb.csv"):
        ludb.record_names(tmp_path)
    (tmp_path / "ludb.csv").write_text("ID,Sex,Age,Rhythms\n1,F,50,Sinus rhythm\n")
    with pytest.raises(RecordError, match="no record of ludb.csv"):
        ludb.record_names(tmp_path)
    with pytest.raises(RecordError, match="no record '9'"):
        ludb.read_record(tmp_path, "9")


def test_a_damaged_table_is_named_and_no_record_lies_elsewhere(tmp_path):
    (tmp_path / "out.hea").write_text("out 0 500 0\n")
    (tmp_path / "in" / "data").mkdir(parents=True)
    for text, said in (
        ("ID,Sex,Age,Rhythms\n../../out,F,50,Sinus rhythm\n", "'../../out' is no plain name"),
        ("ID,Sex,Age\n1,F,50\n", "lacks the columns Rhythms"),
        ("", "lacks the columns ID, Sex, Age, Rhythms"),
        ('ID,Sex,Age,Rhythms\n1,F,50,"' + "x" * 200_000, "no CSV in UTF-8"),
    ):
        (tmp_path / "in" / "ludb.csv").write_text(text)
        for read in (ludb.record_names, ludb.people, lambda folder: ludb_labels(folder, ["1"])):
            with pytest.raises(RecordError, match=said):
                read(tmp_path / "in")
    (tmp_path / "in" / "ludb.csv").write_bytes(b"ID,Sex,Age,Rhythms\n1,\xff,50,x\n")
    with pytest.raises(RecordError, match="no CSV in UTF-8"):
        ludb.people(tmp_path / "in")


@needs_ludb
def test_all_records_are_listed():
    names = ludb.record_names(DATA)
    assert len(names) == len(set(names)) >= 150


@needs_ludb
def test_first_record():
    record = ludb.read_record(DATA, "1")
    assert record.ecg_mv.shape == (12, 5000) and torch.isfinite(record.ecg_mv).all()
    assert (record.age_years, record.sex_female) == (51.0, True)
    assert record.rhythm == ("Sinus bradycardia",) and record.pacing == ()
    assert set(record.beats) == set(LEADS)
    two = record.beats["II"]
    assert (two.qrs_onset[0], two.qrs_peak[0], two.qrs_offset[0], two.t_offset[0]) == (644, 662, 682, 878)


@needs_ludb
def test_leads_are_restored_to_one_scale():
    """Each header gain is its lead's range: at their word all leads are 1 mV high and Einthoven's law fails."""
    heights = []
    for name in ludb.record_names(DATA)[:20]:
        record = ludb.read_record(DATA, name)
        one, two, three = record.ecg_mv[:3] - record.ecg_mv[:3].median(-1, keepdim=True).values
        assert (two - one - three).std() < 0.02 * three.std()
        heights.append(record.ecg_mv.amax(-1) - record.ecg_mv.amin(-1))
        for beats in record.beats.values():
            ordered = np.stack([beats.qrs_onset, beats.qrs_offset, beats.t_peak, beats.t_offset])
            steps = np.diff(ordered, axis=0)
            assert (steps[np.isfinite(steps)] > 0).all()
    typical = torch.stack(heights).median(0).values
    assert 0.8 < typical[1] < 2.5 and 1.2 < typical[9] < 4.0
