"""`clinenv simulate`: a recorded ECG as the pre-dose ECG of a simulated course."""
