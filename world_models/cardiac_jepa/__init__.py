"""A learned world of disease: the next ECG's latent from this one and the transition of its diagnoses. No waveform."""
