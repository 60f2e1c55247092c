"""One example a library, from the checkout: `python -m examples.doors.torchrl_ppo`. What each needs installed is told
by the module of `clinenv.doors` that it opens."""
