"""What runs inside a peer's own virtual environment. Each prints one JSON line: {"what": rates as of `timing.rate`}."""
