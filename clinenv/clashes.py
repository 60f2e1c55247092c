"""Other packages that install a module under a name of ours, `agents` or `world_models`, found at import.

Python takes whichever comes first on its path, so without this check a stranger's module would fail somewhere deep
inside. Looking for a module executes nothing of it; the distributions are asked only once something is wrong.
"""

from __future__ import annotations

import importlib.util
import warnings
from importlib import metadata
from pathlib import Path

__all__ = ["OURS", "Clash", "check", "clash_of", "others_that_install"]

OURS = ("world_models", "agents")
_NEEDED = "world_models"  # without it no environment can be made; agents are for training and judging alone
_ONLY_OURS = {"world_models": "catalog.py", "agents": "policy_agent.py"}
REMEDY = (
    "install clinenv into an environment of its own (python -m venv .venv), or put the folder that holds clinenv first "
    "on PYTHONPATH"
)


class Clash(ImportError):
    """A module of ours is somebody else's here; the message names whose, and the remedy."""


def clash_of(name: str) -> str | None:
    """What is wrong with the module of this name here, in words that end with the remedy; None: it is ours."""
    home = Path(__file__).resolve().parents[1]
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):  # a module that some test or program put into sys.modules by hand
        found = None
    origin = None if found is None or found.origin is None else Path(found.origin).resolve()
    if origin is None:
        return f"clinenv needs its own module {name!r}, which is not installed here; install clinenv again"
    if origin.parent == home / name and (home / name / _ONLY_OURS[name]).is_file() and _ours(origin):
        return None
    others = others_that_install(name)
    whose = f"of {' and '.join(others)}" if others else "somebody else's"
    return f"clinenv needs its own module {name!r}, but {origin} is {whose}: {REMEDY}"


def _ours(init: Path) -> bool:
    """Whether this `__init__.py` is ours, not one that another package wrote over it."""
    with init.open(encoding="utf-8", errors="replace") as file:
        text = file.read(2000)
    return any(words in text for words in ("Deciders: baselines, planners", "World models of human physiology"))


def others_that_install(name: str) -> list[str]:
    """The distributions but clinenv that install a module of this name, as "NAME VERSION"; reads what is installed."""
    found = set()
    for one in metadata.distributions():
        title = one.metadata["Name"]
        if not title or title.lower() == "clinenv":
            continue
        # read as one text: to parse the lists of all that is installed takes seconds
        installed = "\n" + (one.read_text("RECORD") or one.read_text("top_level.txt") or "")
        if any(f"\n{name}{end}" in installed for end in ("/", ".py,", "\n")):
            found.add(f"{title} {one.version}")
    return sorted(found)


def check() -> None:
    """Refuse a stranger's `world_models`; warn of a stranger's `agents`, which only training and judging need.

    Raises:
        Clash (an ImportError): `world_models` is not ours.
    """
    for name in OURS:
        said = clash_of(name)
        if said is not None and name == _NEEDED:
            raise Clash(said)
        if said is not None:
            warnings.warn(said, RuntimeWarning, stacklevel=3)
