"""ECGExplain: which transitions lead from one latent to another."""
