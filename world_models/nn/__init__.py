"""Blocks that two worlds or more are built from."""
