"""Discharge summaries of the oracle ward, written from its truth: what reads them can be judged."""
