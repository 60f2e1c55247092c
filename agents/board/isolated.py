"""An agent in a process of its own, which is handed charts and nothing else: no key and no state is in its memory.

The judge starts `python -m agents.board.isolated` and speaks with it through two pipes, in frames of a JSON header and
a safetensors payload; nothing is unpickled on either side. An agent that takes too long, or whose process ends, is
disqualified.

A process is no prison: it may read this machine's files and reach its network. Judge the code of strangers in a
container, and keep the folder with the board's salt out of it.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from agents import registry
from agents.board.watched import Disqualified, Elsewhere, Whole
from agents.making import Making
from agents.protocol import Narrowable
from agents.registry import Entry
from world_models.protocol import Chart

__all__ = ["IsolatedAgent"]

MOST_BYTES = 1 << 30  # of a frame
MAKING_S = 1800.0  # in which an agent has to be made
ROOT = Path(__file__).resolve().parents[2]  # of the checkout, or of what is installed
ACTION = "action"


class IsolatedAgent(Elsewhere):
    """`Agent` and `Narrowable`, decided in another process. Close it, or use it in a `with`.

    Args:
        what: the entry whose builder the process calls.
        making: env_id, steps, seed, quick, world and runs of `Making`; the process makes its own simulator, of the
            learned world.
        path: folder in which the process works, and which is put on its module path.
        limit_ms: longest that a decision for one patient may take; None: MAKING_S for all.

    Raises:
        Disqualified: it could not be made.
    """

    def __init__(
        self,
        what: Entry,
        making: Mapping[str, Any],
        path: Path | None = None,
        limit_ms: float | None = None,
    ) -> None:
        self.limit_ms = limit_ms
        self._said = tempfile.TemporaryFile()
        here = [os.path.abspath(p) for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
        search = os.pathsep.join(str(p) for p in (path, *here, ROOT) if p)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "agents.board.isolated"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env={**os.environ, "PYTHONPATH": search},
            cwd=path,
        )
        order = {"do": "make", "entry": asdict(what), "making": dict(making), "threads": torch.get_num_threads()}
        self.built, _ = self._ask(order, {}, MAKING_S)
        self.name = str(self.built["name"])

    def __enter__(self) -> IsolatedAgent:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._said):
            if pipe is not None:
                pipe.close()

    def reset(self, mask: Tensor | None = None) -> None:
        """See `Agent`."""
        self._ask({"do": "reset"}, {} if mask is None else {"mask": mask}, MAKING_S)

    def narrow(self, rows: Tensor) -> None:
        """See `Narrowable`."""
        self._ask({"do": "narrow"}, {"rows": rows}, MAKING_S)

    def act(self, chart: Chart) -> Tensor:
        """See `Agent`. Raises Disqualified: the process failed, or did not answer in time."""
        count = next(iter(chart.values())).shape[0]
        seconds = MAKING_S if self.limit_ms is None else max(1.0, self.limit_ms / 1000.0 * count)
        _, tensors = self._ask({"do": "act"}, chart, seconds)
        if set(tensors) != {ACTION}:
            raise Disqualified(f"it answered {sorted(tensors)} instead of an action")
        return tensors[ACTION]

    def _ask(
        self, order: Mapping[str, Any], tensors: Mapping[str, Tensor], seconds: float
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            _write(self._process.stdin, order, tensors)
            head, body = _read(self._process.stdout, time.monotonic() + seconds)
        except TimeoutError:
            self._process.kill()
            raise Disqualified(f"it did not answer within {seconds:g} s") from None
        except (OSError, EOFError, ValueError) as error:
            raise Disqualified(f"its process ended: {self._last_words() or error}") from None
        if "error" in head:
            raise Disqualified(str(head["error"]))
        return head, body

    def _last_words(self) -> str:
        """The last line that the process wrote."""
        if self._said.closed:
            return "it was closed"
        self._process.wait(10)
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:500] if lines else ""


def _write(pipe: BinaryIO | Any, head: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    words = json.dumps(head).encode()
    body = save_tensors({n: t.detach().cpu().contiguous().clone() for n, t in tensors.items()}) if tensors else b""
    pipe.write(len(words).to_bytes(8, "big") + len(body).to_bytes(8, "big") + words + body)
    pipe.flush()


def _read(pipe: BinaryIO | Any, deadline: float | None = None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A frame. Raises EOFError, TimeoutError, or ValueError for one that is none."""
    sizes = _bytes(pipe, 16, deadline)
    words, body = (int.from_bytes(sizes[i : i + 8], "big") for i in (0, 8))
    if words + body > MOST_BYTES:
        raise ValueError(f"a frame of {words + body} bytes; at most {MOST_BYTES} are taken")
    head = json.loads(_bytes(pipe, words, deadline))
    if not isinstance(head, dict):
        raise ValueError("a frame's header is no JSON object")
    return head, load_tensors(_bytes(pipe, body, deadline)) if body else {}


def _bytes(pipe: BinaryIO | Any, count: int, deadline: float | None) -> bytes:
    parts, left = [], count
    while left:
        if deadline is not None and not select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise TimeoutError
        part = os.read(pipe.fileno(), min(left, 1 << 20))
        if not part:
            raise EOFError("the pipe was closed")
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


# ---- in the other process


def _no_oracle() -> None:
    """What is made in the learned world does not load an oracle by its name: a slip is told, not carried out."""
    from world_models import catalog

    load = catalog.load

    def refusing(name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        known = catalog.WORLDS.get(str(name_or_path))
        if known is not None and known.weights is None:
            raise PermissionError(f"an agent of the board may not load {name_or_path!r}: it is the judge's world")
        return load(name_or_path, *args, **kwargs)

    catalog.load = refusing


def _made(order: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    from agents.board.stage import Stage

    torch.set_num_threads(int(order["threads"]))
    _no_oracle()
    given = dict(order["making"])
    stage = Stage(given["env_id"], given["steps"], given["world"])
    given["runs"] = Path(given["runs"])
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in order["entry"].items()}
    entry = Entry(**fields)
    built = registry.build(entry, Making(simulator=stage.learned, **given))
    about = {"name": built.agent.name, "settings": dict(built.settings), "budget": built.budget}
    return built.agent, {**about, "weights": built.weights}


def _answer(agent: Any, order: Mapping[str, Any], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    if order["do"] == "act":
        decided = agent.act(tensors)
        if not isinstance(decided, Tensor):
            raise TypeError(f"it gave a {type(decided).__name__}, not a tensor")
        return {ACTION: decided}
    if order["do"] == "narrow":
        agent.narrow(tensors["rows"])
    else:
        agent.reset(tensors.get("mask"))
    return {}


def main() -> int:
    """Answer until the judge closes the pipe. Returns the exit status."""
    answers = os.fdopen(os.dup(1), "wb")  # what the agent prints must not get between the frames
    os.dup2(2, 1)
    source = sys.stdin.buffer
    agent: Any = None
    while True:
        try:
            order, tensors = _read(source)
        except EOFError:
            return 0
        head: dict[str, Any] = {}
        found: dict[str, Tensor] = {}
        try:
            if order["do"] == "make":
                agent, head = _made(order)
                agent = agent if isinstance(agent, Narrowable) else Whole(agent)
            else:
                found = _answer(agent, order, tensors)
        except Exception as error:
            head = {"error": f"it raised {type(error).__name__}: {error}"[:2000]}
        _write(answers, head, found)


if __name__ == "__main__":
    sys.exit(main())
