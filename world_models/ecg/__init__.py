"""The 12-lead ECG itself: drawn, fitted, measured. No patient, no drug."""
