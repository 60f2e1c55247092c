"""The 12-lead ECG of the conditions present."""
