"""Benchmarks of the years of disease: the progression oracle and Cardiac JEPA."""
