"""ECGProgression: years in a cardiology clinic."""
