"""`clinenv counterfactual`: a recorded ECG's latent, had a condition set in or gone."""
