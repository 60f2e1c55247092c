"""What the benchmarks share, and commands over several domains."""
