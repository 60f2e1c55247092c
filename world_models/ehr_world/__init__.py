"""Learned worlds of a hospital stay: outcomes of a set of concurrent orders."""
