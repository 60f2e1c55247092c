"""Benchmarks of the hospital ward."""
