"""A learned world of the 12-lead ECG under drugs: beat VAE, physiological ODE prior, latent diffusion, belief."""
