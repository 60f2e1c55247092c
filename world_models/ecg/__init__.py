"""The 12-lead ECG itself: synthesised, fitted, measured. No patient, no drug."""
