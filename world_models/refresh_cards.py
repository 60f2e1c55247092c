"""Renew the headers of the cards that ship: `python -m world_models.refresh_cards`; `--check` writes nothing."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from world_models.card_header import with_header
from world_models.files import write_text

__all__ = ["SHIPPED", "main", "stale"]

SHIPPED = Path(__file__).parent / "weights"


def stale(folder: Path = SHIPPED) -> dict[Path, str]:
    """Card -> what it ought to be, of the cards below the folder whose header is not the one that belongs to them.

    Raises:
        CheckpointError: a config beside a card is no JSON object.
        FileNotFoundError: there is no config beside a card.
    """
    from world_models.checkpoint import CARD, read_config

    found = {}
    for path in sorted(folder.glob(f"*/{CARD}")):
        text = path.read_text(encoding="utf-8")
        fresh = with_header(text, read_config(path.parent))
        if fresh != text:
            found[path] = fresh
    return found


def main(argv: list[str] | None = None) -> int:
    """The command line: 0 where nothing was to be done or it was done, 1 where `--check` found old ones."""
    parser = argparse.ArgumentParser(prog="python -m world_models.refresh_cards", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a header is old")
    given = parser.parse_args(argv)
    old = stale()
    for path, text in old.items():
        if not given.check:
            write_text(path, text)
        print(f"{path.parent.name}: {'old' if given.check else 'renewed'}")
    return int(bool(old and given.check))


if __name__ == "__main__":
    sys.exit(main())
