"""Recorded hospital stays: tables and MEDS files to `PatientEpisode`s."""
