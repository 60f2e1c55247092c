"""Recorded ECGs: files, diagnoses, pairs, drug trials."""
