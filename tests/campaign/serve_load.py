"""`clinenv serve` under many sessions at once: patient, slow, garbage and vanishing clients, on the loopback interface.

    python -m tests.campaign.serve_load --out serve_load.json

The server is a process of its own. All sessions are open together before the first step. Every client of an id and a
seed gives the same orders, so that two of them must see the same numbers, whatever their neighbours do. Bounded: by
--seconds in all, and by each client's own patience. Needs Python 3.11.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from websockets.asyncio.client import ClientConnection, connect

from benchmarks.common.results import made_by, write_json

IDS = {"ECGDrug-v0": {"value": 4}, "EHRWard-v0": {"text": "lactate, potassium, saline_ml, MAP"}}
WORLDS = ("ecg-wm-small", "ehr-ward-small")
KINDS = ("patient", "patient", "patient", "slow", "garbage", "vanishing", "vanishing http", "patient")  # in turn
GARBAGE: tuple[str | bytes, ...] = (
    "{", "[]", "null", b"\x80\x04\x95", '{"type": "step", "data": {"value": NaN}}', '{"type": "step", "data": {}}',
    '{"type": "reset", "data": {"sede": 1}}', '{"type": "os.system", "data": {}}', "[" * 2000,
    '{"type": "step", "data": {"text": "' + "x" * 12_000 + '"}}',
)  # fmt: skip
SEEDS = 10  # clients of an id share so many
SLOW_S = 1.5  # longest pause of a slow client between two messages


@dataclass
class Seen:
    """What all clients saw."""

    counts: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    step_ms: list[float] = field(default_factory=list)
    reset_ms: list[float] = field(default_factory=list)
    last: dict[tuple[str, int], list[float]] = field(default_factory=dict)  # (id, seed) -> the last observation
    resident_mb: list[float] = field(default_factory=list)


async def asked(socket: ClientConnection, message: Any, took: list[float] | None, patience_s: float) -> Any:
    """The answer to a message; how long it took is added to `took`."""
    began = time.perf_counter()
    await socket.send(message if isinstance(message, str | bytes) else json.dumps(message))
    answer = json.loads(await asyncio.wait_for(socket.recv(), patience_s))
    if took is not None:
        took.append(1e3 * (time.perf_counter() - began))
    return answer


async def client(number: int, url: str, args: argparse.Namespace, all_open: asyncio.Barrier, seen: Seen) -> None:
    """One course of one client."""
    kind, env_id = KINDS[number % len(KINDS)], list(IDS)[number % len(IDS)]
    seed, draw = number // len(KINDS) % SEEDS, random.Random(f"{args.seed} {number}")
    socket = await connect(f"{url.replace('http', 'ws')}/{env_id}/ws", open_timeout=args.patience_s, proxy=None)
    told = await asked(socket, {"type": "reset", "data": {"seed": seed}}, seen.reset_ms, args.patience_s)
    assert told["type"] == "observation", told
    await all_open.wait()
    for step in range(args.steps):
        if kind == "slow":
            await asyncio.sleep(draw.uniform(0, SLOW_S))
        if kind == "garbage":
            error = await asked(socket, draw.choice(GARBAGE), None, args.patience_s)
            assert error["type"] == "error" and error["data"]["message"], error
            seen.counts["garbage refused"] += 1
        if kind.startswith("vanishing") and step == args.steps // 2:
            if kind.endswith("http"):  # a request is under way, and nobody will read its answer
                await socket.send(json.dumps({"type": "step", "data": IDS[env_id]}))
            socket.transport.abort()
            seen.counts["vanished"] += 1
            return
        told = await asked(socket, {"type": "step", "data": IDS[env_id]}, seen.step_ms, args.patience_s)
        assert told["type"] == "observation", told
        seen.counts["steps"] += 1
        if told["data"]["done"]:
            break
    values = told["data"]["observation"]["values"]
    assert seen.last.setdefault((env_id, seed), values) == values, f"{env_id}, seed {seed}: another course"
    await socket.close()
    seen.counts["finished"] += 1


async def one_too_many(url: str, patience_s: float) -> None:
    """When all sessions are taken the next is refused with the remedy."""
    async with connect(f"{url.replace('http', 'ws')}/ws", open_timeout=patience_s, proxy=None) as socket:
        told = json.loads(await asyncio.wait_for(socket.recv(), patience_s))
    assert told["data"]["code"] == "CAPACITY_REACHED" and "--max-sessions" in told["data"]["message"], told


def health(url: str) -> dict[str, Any]:
    """What the server says of itself."""
    with urllib.request.urlopen(f"{url}/health", timeout=60) as answer:
        return json.load(answer)


async def watched(url: str, seen: Seen) -> None:
    """Note the server's resident memory every second."""
    while True:
        seen.resident_mb.append((await asyncio.to_thread(health, url))["resident_mb"])
        await asyncio.sleep(1.0)


async def campaign(url: str, args: argparse.Namespace, seen: Seen) -> None:
    """All clients at once, and one too many while they are all there."""
    all_open = asyncio.Barrier(args.sessions + 1)
    clients = [asyncio.create_task(client(n, url, args, all_open, seen)) for n in range(args.sessions)]
    watching = asyncio.create_task(watched(url, seen))
    try:
        async with asyncio.timeout(args.seconds):
            opened = asyncio.create_task(all_open.wait())
            await asyncio.wait([opened, *clients], return_when=asyncio.FIRST_COMPLETED)
            if opened.done():
                await one_too_many(url, args.patience_s)
                seen.counts["one too many refused"] += 1
            else:
                await all_open.abort()
            ended = await asyncio.gather(*clients, return_exceptions=True)
    except TimeoutError:
        ended = [TimeoutError(f"over {args.seconds} s") if not task.done() else task.exception() for task in clients]
        [task.cancel() for task in clients]
    watching.cancel()
    for number, error in enumerate(ended):
        if error is not None:
            seen.failed.append(f"client {number}, {KINDS[number % len(KINDS)]}: {type(error).__name__}: {error}"[:300])


def emptied(url: str, patience_s: float) -> int:
    """Sessions that are left once all clients have gone."""
    end = time.monotonic() + patience_s
    while (left := health(url)["sessions"]) and time.monotonic() < end:
        time.sleep(0.2)
    return left


def told(ms: list[float]) -> dict[str, float]:
    """Latencies in ms."""
    median, high = np.percentile(ms, [50, 99]) if ms else (float("nan"), float("nan"))
    return {"median_ms": round(float(median), 1), "p99_ms": round(float(high), 1), "count": len(ms)}


def main(argv: list[str] | None = None) -> int:
    """Run the campaign; 0 when nothing failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=200)
    parser.add_argument("--steps", type=int, default=6, help="of a course")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=500.0, help="in all, at most")
    parser.add_argument("--patience-s", type=float, default=240.0, help="of a client with one answer")
    parser.add_argument("--out", type=Path, help="file for the figures (default: print them alone)")
    args = parser.parse_args(argv)

    limits = ["--max-sessions", str(args.sessions), "--step-timeout-s", str(args.patience_s)]
    command = [sys.executable, "-m", "clinenv", "serve", *IDS, "--port", "0", *limits]
    seen = Seen()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout and server.stderr
        try:
            lines = [server.stdout.readline() for _ in range(len(IDS) + 1)]
            found = re.search(r"http://[\d.:]+", lines[0])
            assert found, lines
            url, began = found[0], time.monotonic()
            before = health(url)["resident_mb"]
            asyncio.run(campaign(url, args, seen))
            seconds, left = time.monotonic() - began, emptied(url, 60.0)
            after = health(url)["resident_mb"]
        finally:
            server.send_signal(signal.SIGINT)
            complaints = [line for line in server.stderr.read().splitlines() if line != "clinenv: stopped"]
            code = server.wait(60)
    figures = {
        "sessions": args.sessions,
        "courses_failed": len(seen.failed),
        "failures": seen.failed[:20],
        **{name.replace(" ", "_"): seen.counts[name] for name in
           ("finished", "vanished", "steps", "garbage refused", "one too many refused")},
        "sessions_left": left,
        "server_complaints": len(complaints),
        "server_exit": code,
        "resident_mb": {"before": before, "peak": max([before, after, *seen.resident_mb]), "after": after},
        "step": told(seen.step_ms),
        "reset": told(seen.reset_ms),
        "seconds": round(seconds, 1),
    }  # fmt: skip
    print(json.dumps(figures, indent=1))
    print("\n".join(complaints[:5]), file=sys.stderr)
    if args.out is not None:
        seeds = {"clients": args.seed, "patients": f"0 to {SEEDS - 1}"}
        write_json(args.out, figures, made_by("tests.campaign.serve_load", argv, seeds, WORLDS))
    return 0 if not seen.failed and not left and not complaints and code in (0, 130) else 1  # 0: SIGINT was ignored


if __name__ == "__main__":
    raise SystemExit(main())
