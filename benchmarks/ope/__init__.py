"""Off-policy evaluation measured against the truth: the cells of `benchmarks.offline`, and its table."""
