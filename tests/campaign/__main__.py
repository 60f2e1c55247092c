"""`python -m tests.campaign NAME ...`; the names are those of `CAMPAIGNS`."""

from __future__ import annotations

import importlib
import sys

CAMPAIGNS = {
    "mutate": "damaged inputs of every kind",
    "kills": "SIGKILL at random moments of writing",
    "steps": "random and extreme actions in every id and world",
    "faults": "forks, threads, full disks, clocks and the like",
    "serve_load": "many clients at the server",
    "all": "the first four, one after the other",
}


def main(arguments: list[str] | None = None) -> int:
    """Run one campaign; 0 if nothing failed, 1 if something did, 2 for a name that is none."""
    given = sys.argv[1:] if arguments is None else arguments
    if not given or given[0] not in CAMPAIGNS:
        known = "\n".join(f"  {name:11s} {what}" for name, what in CAMPAIGNS.items())
        print(f"usage: python -m tests.campaign NAME [--help]; NAME is one of\n{known}", file=sys.stderr)
        return 2
    if given[0] == "all":
        return max(main([name, *given[1:]]) for name in list(CAMPAIGNS)[:4])
    return importlib.import_module(f"tests.campaign.{given[0]}").main(given[1:])


if __name__ == "__main__":
    sys.exit(main())
