"""Run from the checkout: `python -m examples.quickstart`, or any numbered file by its path."""
