"""What a command says when its input is wrong."""

from __future__ import annotations

__all__ = ["UsageError"]


class UsageError(ValueError):
    """Input a person can put right; the message names the value, the limit and the remedy. Exit code 2."""
