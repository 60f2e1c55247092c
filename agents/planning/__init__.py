"""Deciders that imagine before they act: proposals, an optimiser, a risk measure, and a controller to join them."""
