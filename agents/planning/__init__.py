"""Deciders that imagine before they act: a plan space, an optimiser, a risk measure, and a controller to join them."""
