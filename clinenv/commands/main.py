"""The command line: a table of commands, each imported when it is asked for."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NoReturn

from clinenv.commands.errors import UsageError

__all__ = ["COMMANDS", "main"]

INTERRUPTED = 130  # exit code of a command stopped from the keyboard: 128 + SIGINT, as shells have it

# name -> (module:function that runs it, module:function that states its arguments, one line of help)
COMMANDS: dict[str, tuple[str, str, str]] = {
    "cohorts": (
        "clinenv.commands.cohorts:run",
        "clinenv.commands.cohorts:add_arguments",
        "list the cohorts, whom the worlds admit",
    ),
    "counterfactual": (
        "clinenv.commands.counterfactual.command:run",
        "clinenv.commands.counterfactual.inputs:add_arguments",
        "move the latent of a recorded ECG by the onset or the resolution of a diagnosis; write a report",
    ),
    "doctor": (
        "clinenv.commands.doctor.command:run",
        "clinenv.commands.doctor.command:add_arguments",
        "check Python, versions, threads, compiler, GPU, weights and clashing packages; exit 1 if something is wrong",
    ),
    "envs": (
        "clinenv.commands.envs:run",
        "clinenv.commands.envs:add_arguments",
        "list the environments: their ids, spaces, horizons and worlds",
    ),
    "measure": (
        "clinenv.commands.measure:run",
        "clinenv.commands.measure:add_arguments",
        "measure the intervals of a recorded 12-lead ECG",
    ),
    "play": (
        "clinenv.commands.play:run",
        "clinenv.commands.play:add_arguments",
        "play with a simulated patient on a page of this machine: orders, ECG, chart, learned world beside oracle",
    ),
    "recommend": (
        "clinenv.commands.recommend.command:run",
        "clinenv.commands.recommend.inputs:add_arguments",
        "rank drugs and doses by their simulated risk for the patient of a recorded ECG; write a report",
    ),
    "serve": (
        "clinenv.commands.serve:run",
        "clinenv.commands.serve:add_arguments",
        "serve environments by URL, as OpenEnv has it, to agents in other processes",
    ),
    "simulate": (
        "clinenv.commands.simulate.command:run",
        "clinenv.commands.simulate.inputs:add_arguments",
        "simulate the effect of a drug on the patient of a recorded ECG; write a report",
    ),
    # agents stand above this floor: theirs is named, and loaded when it is asked for
    "submit": (
        "agents.board.command:run",
        "clinenv.commands.submit:add_arguments",
        "check an agent that is to stand on the leaderboard, judge it beside the simple rules; write its rows",
    ),
    "train": (
        "clinenv.commands.train:run",
        "clinenv.commands.train:add_arguments",
        "train a policy in a world, by reinforcement learning; a run that was stopped goes on",
    ),
    "worlds": (
        "clinenv.commands.worlds:run",
        "clinenv.commands.worlds:add_arguments",
        "list the worlds in which a patient can be simulated: their weights, and what they learned from",
    ),
}


class _Parser(argparse.ArgumentParser):
    """Errors look like the commands' own: one line that begins with 'clinenv: error:'."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"clinenv: error: {message}; {self.prog} --help lists the arguments\n")


def _function(address: str) -> Callable[..., Any]:
    """The function at "module:name"."""
    module, _, name = address.partition(":")
    return getattr(import_module(module), name)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="clinenv",
        description="ECGs and drugs in learned and mechanistic worlds. Simulation - not for clinical use.",
    )
    parser.add_argument("--version", action="store_true", help="print the version and stop")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, (_, add_arguments, help_line) in COMMANDS.items():
        described = help_line[0].upper() + help_line[1:] + "."
        own = commands.add_parser(name, help=help_line, description=described)
        _function(add_arguments)(own)
        own.set_defaults(own_parser=own)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 when it did its work, 1 when the doctor found something wrong, 2 when its input was wrong (the reason is on
        standard error), `INTERRUPTED`.
    """
    parser = _parser()
    given, more = parser.parse_known_args(argv)
    if more:  # said by the command's own parser, whose --help lists what it takes
        getattr(given, "own_parser", parser).error(f"unrecognized arguments: {' '.join(more)}")
    if given.version:
        from clinenv import __version__

        print(f"clinenv {__version__}")
        return 0
    if given.command is None:
        parser.print_help(sys.stderr)
        return 2
    try:
        return _function(COMMANDS[given.command][0])(given)
    except (UsageError, OSError) as error:
        print(f"clinenv: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("clinenv: stopped", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    raise SystemExit(main())
