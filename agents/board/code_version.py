"""Which code judged: the version, and one sum over every source file that is installed."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib import metadata
from pathlib import Path

__all__ = ["code_version"]

PACKAGES = ("world_models", "clinenv", "agents")
ROOT = Path(__file__).resolve().parents[2]


@lru_cache(maxsize=1)
def code_version() -> str:
    """ "0.1.0+" and twelve digits of the SHA-256 over paths and bytes of all Python files of the three packages."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            digest.update(f"{path.relative_to(ROOT).as_posix()}\n".encode())
            digest.update(path.read_bytes())
    try:
        version = metadata.version("clinenv")
    except metadata.PackageNotFoundError:  # a checkout that was never installed
        version = "checkout"
    return f"{version}+{digest.hexdigest()[:12]}"
