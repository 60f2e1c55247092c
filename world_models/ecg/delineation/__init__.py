"""Intervals of recorded ECGs: beats, rhythm, waves, and whether a heart made them."""
