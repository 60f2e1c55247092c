"""Environments by URL: an OpenEnv-compatible server. `clinenv serve` starts it (extra: serve)."""
