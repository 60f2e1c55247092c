"""MEDS files, read and written."""
