"""Benchmarks of drugs and the ECG."""
