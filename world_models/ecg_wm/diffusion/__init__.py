"""Latent diffusion of what a drug does to an ECG's latent, held to physiology by an energy, and its few-step student."""
