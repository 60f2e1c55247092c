"""`clinenv counterfactual`: the latent of a recorded ECG, had a condition set in or resolved."""
