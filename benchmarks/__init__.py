"""Every claim the project makes about itself: one script each, its command in the docstring, its result in results/."""
