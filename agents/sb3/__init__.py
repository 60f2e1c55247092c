"""Stable-Baselines3 on clinical vector environments: adapter, presets, training, and a trained policy as an Agent."""
