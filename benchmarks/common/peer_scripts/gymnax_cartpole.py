"""Steps a second of gymnax's CartPole-v1: a few sums a step, compiled by JAX, so the most an interface lets through.

`python -m benchmarks.common.peer_scripts.gymnax_cartpole SECONDS REPEATS THREADS`. Environments are reset in the step
in which they end. "a call a step": each step is called from Python, as an agent outside of JAX does; "100 steps a
call": JAX steps by itself.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from benchmarks.common.timing import Work, rate

BATCHES = (1, 64, 1024)
SCANNED = 100  # steps of one call


def stepping(batch: int, steps: int) -> Work:
    """Work: one call, of so many steps of `batch` environments with random actions drawn in the call."""
    import gymnax  # where this runs it is there
    import jax

    env, params = gymnax.make("CartPole-v1")
    reset = jax.jit(jax.vmap(env.reset, (0, None)))
    _, state = reset(jax.random.split(jax.random.key(0), batch), params)
    several = jax.vmap(env.step, (0, 0, 0, None))

    def once(carried: tuple[Any, Any], _: Any) -> tuple[tuple[Any, Any], Any]:
        key, state = carried
        key, acts, stepped = jax.random.split(key, 3)
        action = jax.random.randint(acts, (batch,), 0, 2)
        seen, state, reward, *_ = several(jax.random.split(stepped, batch), state, action, params)
        return (key, state), (seen, reward)

    call = jax.jit(lambda carried: jax.lax.scan(once, carried, None, steps))
    carried = (jax.random.key(1), state)

    def work() -> int:
        nonlocal carried
        carried, out = call(carried)
        jax.block_until_ready(out)
        return batch * steps

    return work


def main() -> None:
    seconds, repeats = float(sys.argv[1]), int(sys.argv[2])
    found = {f"batch {batch}, a call a step": rate(stepping(batch, 1), seconds, repeats) for batch in BATCHES}
    found[f"batch {BATCHES[-1]}, {SCANNED} steps a call"] = rate(stepping(BATCHES[-1], SCANNED), seconds, repeats)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
