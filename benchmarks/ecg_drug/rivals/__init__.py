"""Rivals of ECG-WM: other models of the post-dose ECG, trained on the same pairs within the same processor time."""
