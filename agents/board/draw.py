"""Whom a board judges on: patients that follow from a salt and from what is judged, so that no agent can have met them.

The salt is drawn when a board is opened, after its agents are made, and is published with the results: whoever has it
draws the same patients again. What was submitted is stirred in by its digest, so that an agent that was trained on the
patients of an old salt is another agent, and meets others.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable

import torch
from torch import Tensor

from world_models import keys

__all__ = ["checked_salt", "edition", "judged_keys", "new_salt"]

_SALT = re.compile(r"[0-9a-f]{32,128}")


def new_salt() -> str:
    """128 bits that nobody could know before, hexadecimal."""
    return secrets.token_hex(16)


def checked_salt(salt: str) -> str:
    """The salt, as it is.

    Raises:
        ValueError: fewer than 32 or more than 128 hexadecimal digits.
    """
    if not _SALT.fullmatch(salt):
        raise ValueError(f"salt {salt!r:.80} is not 32 to 128 digits of 0-9a-f; leave it out to draw a new one")
    return salt


def edition(salt: str, submissions: Iterable[str] = ()) -> str:
    """SHA-256 of a salt and of the digests of what was submitted, whatever their order: the name of what is judged."""
    return hashlib.sha256("\n".join([checked_salt(salt), *sorted(submissions)]).encode()).hexdigest()


def judged_keys(of: str, env_id: str, count: int, device: torch.device | str = "cpu") -> Tensor:
    """int64 [count] keys of the patients of an edition in an id; the first of more are the same ones.

    Folded by a name that no training folds by: the plain seeds that training starts from cannot give one of them.
    """
    digest = hashlib.sha256(f"{of}\n{env_id}".encode()).digest()
    first = int.from_bytes(digest[:7], "big")  # 56 bits: rows count on from here without wrapping
    return keys.fold(keys.from_seed(first, count, device), "leaderboard")
