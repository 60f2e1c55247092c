"""Made-up recorded stays, for the id that goes on from records: no shipped file holds any."""

from __future__ import annotations

from datetime import datetime, timedelta

from world_models.data.ehr.episode import InquiryEvent, PatientEpisode, build_episode

__all__ = ["stay"]


def stay(stay_id: int) -> PatientEpisode:
    """A made-up recorded stay of four days, for the id that goes on from records."""
    start = datetime(2150, 3, 1, 8)
    values = (("potassium_mmol_l", 4.1, "mmol/L"), ("heart_rate_bpm", 84.0 + stay_id, "bpm"))
    events = [
        InquiryEvent(item, value, None, start + timedelta(hours=hour), None, unit, "LAB//1")
        for hour in (1, 7, 15, 21)
        for item, value, unit in values
    ]
    return build_episode(
        subject_id=stay_id,
        stay_id=stay_id,
        started=start,
        admitted=start,
        discharged=start + timedelta(days=4),
        inquiries=events,
        interventions=[],
        age_years=60.0 + stay_id,
        sex_female=stay_id % 2 == 0,
        died_in_hospital=False,
    )
