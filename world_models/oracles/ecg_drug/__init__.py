"""The oracle of `ECGDrug-v0`: kinetics and effects fitted to a trial, rhythm from published figures."""
