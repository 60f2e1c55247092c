"""Latent diffusion of an ECG's latent under a drug, held to physiology by an energy, and its few-step student."""
