"""Worlds and rivals on recorded stays of people."""
