"""A hospital stay of up to 14 days: tests and treatments ordered every few hours."""
