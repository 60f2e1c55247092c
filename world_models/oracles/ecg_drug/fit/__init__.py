"""The fit of a crossover trial, offline."""
