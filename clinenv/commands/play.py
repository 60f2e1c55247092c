"""`clinenv play`: a page on the loopback interface to play with a simulated patient, or a folder with such a page."""

from __future__ import annotations

import argparse
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from clinenv.commands.errors import UsageError
from clinenv.rendering.labels import NOT_FOR_CLINICAL_USE

if TYPE_CHECKING:
    from clinenv.play.game import Game

__all__ = ["add_arguments", "run"]

_LOOPBACK = "127.0.0.1"
_NEEDS = 'clinenv play needs {missing}, which is not installed; run: pip install "clinenv[play]"'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """State the arguments of `clinenv play`."""
    from world_models.command_line import MOST_THREADS, whole

    parser.add_argument("env", metavar="ID", help="of the environment, e.g. ECGDrug-v0")
    parser.add_argument(
        "--world", metavar="FOLDER", help="a learned world of your own, offered beside the shipped ones"
    )
    parser.add_argument("--host", default=_LOOPBACK, help=f"address to listen on (default {_LOOPBACK}: this machine)")
    parser.add_argument("--port", type=whole(0, 65535), default=8765, help="0 takes a free one (default 8765)")
    parser.add_argument("--open", action="store_true", help="open the page in the browser, too")
    parser.add_argument(
        "--static", metavar="DIR", help="write the page into a new folder instead, as files that need no server of ours"
    )
    parser.add_argument(
        "--onnxruntime-web", metavar="FILE", help="its npm package for --static; without, it comes from the registry"
    )
    parser.add_argument("--threads", type=whole(1, MOST_THREADS), default=1, help="torch threads (default 1)")


def run(given: argparse.Namespace) -> int:
    """Serve until the keyboard stops it.

    Raises:
        UsageError: an id that cannot be played, a missing library, a folder that is no world of the id, an address that
            cannot be had.
    """
    game = _game(given.env)
    if given.static is not None:
        return _write(game, given)
    try:
        import uvicorn

        from clinenv.play.server import LOOPBACK, application
    except ImportError as error:
        raise UsageError(_NEEDS.format(missing=error.name)) from error
    import torch

    torch.set_num_threads(given.threads)
    if given.world is not None:
        _check_world(game, given.world)
    here = given.host in LOOPBACK
    app = application(game, LOOPBACK if here else ("*",), given.world)
    listening = _listen(given.host, given.port)
    name = f"[{given.host}]" if ":" in given.host else given.host
    address = f"http://{name}:{listening.getsockname()[1]}/"
    if not here:
        print(
            "clinenv: warning: every machine that reaches this address can play, and nothing is encrypted",
            file=sys.stderr,
        )
    print(f"{game.id} at {address} (Ctrl+C stops it). {NOT_FOR_CLINICAL_USE}", flush=True)
    if given.open:
        import webbrowser

        webbrowser.open(address)
    config = uvicorn.Config(app, log_level="warning", limit_concurrency=64, timeout_keep_alive=30, server_header=False)
    uvicorn.Server(config).run(sockets=[listening])
    return 0


def _write(game: Game, given: argparse.Namespace) -> int:
    """The page without a server. Raises UsageError: see `clinenv.play.static.folder.build`."""
    import torch

    from clinenv.play.static.folder import MOST_BYTES, build

    if given.world is not None:
        raise UsageError("--static takes the shipped world; leave out --world")
    torch.set_num_threads(given.threads)
    folder = Path(given.static)
    try:
        size, found = build(game, folder, given.onnxruntime_web)
    except ImportError as error:
        raise UsageError(
            f'clinenv play --static needs {error.name}, which is not installed; run: pip install "clinenv[play-static]"'
        ) from error
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from error
    print(
        f"{folder}: {size / 1e6:.1f} MB (of {MOST_BYTES / 1e6:g}). Over {found.steps} steps its networks differ from "
        f"the world by at most {found.state:.1e} (state) and {found.chart:.1e} (chart), relative; {found.reward:.1e} "
        f"(reward); {found.ecg_mv * 1e3:.2g} uV (ECG).\n"
        f"Any server of files will do: python -m http.server --directory {folder}. {NOT_FOR_CLINICAL_USE}"
    )
    return 0


def _game(env_id: str) -> Game:
    from clinenv.play.games import GAMES

    if env_id not in GAMES:
        raise UsageError(f"{env_id!r} cannot be played; choose one of {', '.join(GAMES)}")
    return GAMES[env_id]


def _check_world(game: Game, folder: str) -> None:
    """Raises UsageError unless the folder is a world of the id."""
    from clinenv.play.course import episodes_of

    try:
        episodes_of(game, folder, None, None)
    except (ValueError, OSError) as error:
        raise UsageError(f"--world {folder}: {error}") from error


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises UsageError: the address is another's, or none of this machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise UsageError(f"--host {host} --port {port}: {error}; choose another, or --port 0 for a free one") from error
    return listening
