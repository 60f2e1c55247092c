"""`clinenv submit`: what it is told. What it does stands a floor above, in `agents.board.command`."""

from __future__ import annotations

import argparse

__all__ = ["add_arguments"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """State the arguments of `clinenv submit`; what they may be is checked with the submission."""
    parser.add_argument("file", metavar="FILE.json", help="the submission: agents/board/submission.py says its fields")
    parser.add_argument("--check-only", action="store_true", help="make the agent, let it decide a few times, and stop")
    parser.add_argument("--patients", type=int, default=100, help="judged on, at least 2 (default 100)")
    parser.add_argument("--steps", nargs="+", type=int, help="lengths of episodes (default: the id's own)")
    parser.add_argument("--limit-ms", type=float, default=1000.0, help="longest decision for a patient (default 1000)")
    parser.add_argument("--salt", help="32 or more hexadecimal digits; the patients of an earlier run (default: new)")
    parser.add_argument("--quick", action="store_true", help="the rules beside it are tuned with a small budget")
    parser.add_argument("--runs", default="runs/submissions", help="folder where cells are kept")
    parser.add_argument("--json", metavar="FILE", help="write the rows, with salt and digest, to this file")
