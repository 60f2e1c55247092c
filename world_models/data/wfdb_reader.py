"""The earlier name of `world_models.data.ecg.wfdb.reader`, as documents and notebooks give it."""

from world_models.data.ecg.wfdb.reader import (
    LEADS,
    RecordError,
    Recording,
    folder_records,
    parse_age_years,
    parse_sex_female,
    read_ecg,
)

__all__ = ["LEADS", "RecordError", "Recording", "folder_records", "parse_age_years", "parse_sex_female", "read_ecg"]
