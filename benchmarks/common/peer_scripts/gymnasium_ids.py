"""Steps a second of Gymnasium ids, one environment each, resets included.

`python -m benchmarks.common.peer_scripts.gymnasium_ids SECONDS REPEATS THREADS MODULE IDS`, where IDS is a JSON object:
what it is called -> arguments of `gymnasium.make`, or, with an "entry_point", of `gymnasium.register`.
"""

from __future__ import annotations

import importlib
import json
import sys
import warnings

import gymnasium

from benchmarks.common.playing import playing
from benchmarks.common.timing import rate


def made(arguments: dict) -> gymnasium.Env:
    """The environment that these arguments stand for."""
    if "entry_point" in arguments:
        gymnasium.register(**arguments)
        return gymnasium.make(arguments["id"], disable_env_checker=True)
    return gymnasium.make(**arguments, disable_env_checker=True)


def main() -> None:
    warnings.simplefilter("ignore")
    seconds, repeats, _, module, ids = sys.argv[1:]
    importlib.import_module(module)
    print(json.dumps({name: measured(arguments, seconds, repeats) for name, arguments in json.loads(ids).items()}))


def measured(arguments: dict, seconds: str, repeats: str) -> dict[str, float]:
    env = made(arguments)
    return rate(playing(env), float(seconds), int(repeats))


if __name__ == "__main__":
    main()
