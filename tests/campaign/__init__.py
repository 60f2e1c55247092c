"""Commands that try to break the package: `python -m tests.campaign NAME`. docs/reliability.md has what came of it."""
