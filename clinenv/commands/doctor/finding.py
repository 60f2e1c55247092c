"""One thing that the doctor looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding", "Status"]

Status = Literal["ok", "note", "wrong"]  # a note may slow or narrow work; what is wrong breaks it, or its promises


@dataclass(frozen=True)
class Finding:
    """What was found, and what to do about it."""

    about: str
    status: Status
    said: str
    remedy: str = ""  # only where something is to be mended
