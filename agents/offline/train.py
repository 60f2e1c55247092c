"""Learn a policy from a log by d3rlpy: `python -m agents.offline.train --log FILE.h5 --algorithm cql --out DIR`.

bc (behaviour cloning), cql (discrete conservative Q-learning, Kumar 2020, arXiv 2006.04779), bcq (discrete
batch-constrained Q-learning, Fujimoto 2019, arXiv 1910.01708), iql (implicit Q-learning, Kostrikov 2021, arXiv
2110.06169; where amounts are chosen). Levels and sets of switches are learned as one choice among the commonest of the
log (`agents.offline.coding`), for bc of switches each switch by itself.

The weights are taken from d3rlpy's torch modules into safetensors and JSON; its own files are never written or read.
Needs the extra `offline` and d3rlpy. Metrics go to metrics.jsonl, a line an epoch.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from agents.offline.coding import coding_of
from agents.offline.loaders import as_d3rlpy, d3rlpy_of
from agents.offline.logged import Logged, load
from agents.offline.policy import FORM, Recipe, load_networks, save_policy
from world_models.command_line import MOST_THREADS, folder, number, whole

__all__ = ["ALGORITHMS", "Settings", "learn", "main"]


@dataclass(frozen=True)
class Settings:
    """Of a training run."""

    updates: int = 4000
    batch: int = 256
    hidden: tuple[int, ...] = (128, 128)
    learning_rate: float = 1e-3
    gamma: float = 1.0  # courses are short and the hour is in the chart
    cost_weight: float = 0.0  # of the safety cost, taken off the reward
    seed: int = 0
    alpha: float = 1.0  # cql: weight of conservatism
    flexibility: float = 0.3  # bcq: share of the likeliest action's chance that an action needs
    expectile: float = 0.7  # iql
    temperature: float = 3.0  # iql: of the advantage's exponential
    epochs: int = 10  # lines of metrics


class _Algorithm:
    """One algorithm: how it decides, and its d3rlpy configuration by the coding."""

    def __init__(self, decision: str, discrete: str | None, continuous: str | None, networks: tuple[str, ...]) -> None:
        self.decision, self.discrete, self.continuous, self.networks = decision, discrete, continuous, networks


ALGORITHMS: dict[str, _Algorithm] = {
    "bc": _Algorithm("likeliest", "DiscreteBCConfig", "BCConfig", ("imitator",)),
    "cql": _Algorithm("best", "DiscreteCQLConfig", None, ("critic_0",)),
    "bcq": _Algorithm("constrained", "DiscreteBCQConfig", None, ("critic_0", "imitator")),
    "iql": _Algorithm("mean", None, "IQLConfig", ("actor",)),
}
_HEAD = {"likeliest": "imitator", "mean": "actor"}


def coding_for(algorithm: str, action_kind: str) -> str:
    """The coding that an algorithm learns a kind of action in.

    Raises:
        ValueError: it cannot.
    """
    made = ALGORITHMS[algorithm]
    if action_kind in ("doses", "switches") and made.continuous is not None:
        return "box"
    if action_kind != "doses" and made.discrete is not None:
        return "menu" if action_kind == "menu" else "book"
    able = [name for name in ALGORITHMS if name != algorithm and _can(name, action_kind)]
    raise ValueError(f"{algorithm} does not learn {action_kind}; take {' or '.join(able)}")


def _can(name: str, action_kind: str) -> bool:
    made = ALGORITHMS[name]
    return (made.continuous if action_kind == "doses" else made.discrete) is not None


def learn(logged: Logged, algorithm: str, out: Path, settings: Settings | None = None, progress: bool = True) -> str:
    """Learn and write the folder of a policy; returns its seal.

    Raises:
        ImportError: d3rlpy is not installed.
        ValueError: the algorithm is unknown, or does not learn the log's kind of action.
    """
    if algorithm not in ALGORITHMS:
        raise ValueError(f"algorithm {algorithm!r} is unknown; choose one of {', '.join(ALGORITHMS)}")
    settings = settings or Settings()
    coding = coding_of(logged, coding_for(algorithm, logged.about.action_kind))
    d3rlpy = d3rlpy_of()
    made = ALGORITHMS[algorithm]
    decision = made.decision if coding.discrete or algorithm != "bc" else "mean"
    recipe = Recipe(
        algo=algorithm,
        decision=decision,
        coding=coding.kind,
        action_kind=coding.action_kind,
        actions=coding.size,
        entries=logged.choice.shape[-1],
        hidden=settings.hidden,
        observation_names=logged.about.observation_names,
        updates=settings.updates,
        seed=settings.seed,
        learned_from={**asdict(logged.about), "settings": asdict(settings)},
        flexibility=settings.flexibility if algorithm == "bcq" else 0.0,
    )
    with _seeded(settings.seed), _quiet():
        learner = _config(d3rlpy, algorithm, coding.discrete, settings).create(device="cpu:0")
        data = as_d3rlpy(logged, coding, settings.cost_weight)
        per_epoch = max(1, settings.updates // settings.epochs)
        lines = []
        quiet = d3rlpy.logging.NoopAdapterFactory()
        fit = learner.fitter(
            data, per_epoch * settings.epochs, per_epoch, logger_adapter=quiet, show_progress=False, save_interval=10**9
        )
        with tqdm(total=settings.epochs, desc=f"{algorithm} from {logged.about.env_id}", disable=not progress) as bar:
            for epoch, metrics in fit:
                losses = {name: round(value, 6) for name, value in metrics.items() if not name.startswith("time")}
                lines.append(json.dumps({"updates": epoch * per_epoch, **losses}))
                bar.update()
    networks = _networks(recipe, learner.impl.modules)
    seal = save_policy(out, recipe, networks, coding.book)
    (out / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return seal


def _config(d3rlpy: Any, algorithm: str, discrete: bool, settings: Settings) -> Any:
    """d3rlpy's configuration."""
    made = ALGORITHMS[algorithm]
    name = made.discrete if discrete else made.continuous
    encoder = d3rlpy.models.encoders.VectorEncoderFactory(list(settings.hidden))
    common = {"batch_size": settings.batch}
    rate = settings.learning_rate
    each: dict[str, dict[str, Any]] = {
        # beta weighs a penalty on the logits, which at d3rlpy's 0.5 keeps every action about equally likely
        "bc": {"learning_rate": rate, "encoder_factory": encoder, **({"beta": 1e-3} if discrete else {})},
        "cql": {"learning_rate": rate, "encoder_factory": encoder, "gamma": settings.gamma, "alpha": settings.alpha},
        "bcq": {
            "learning_rate": rate,
            "encoder_factory": encoder,
            "gamma": settings.gamma,
            "action_flexibility": settings.flexibility,
            "beta": 1e-3,
        },
        "iql": {
            "actor_learning_rate": rate,
            "critic_learning_rate": rate,
            "actor_encoder_factory": encoder,
            "critic_encoder_factory": encoder,
            "value_encoder_factory": encoder,
            "gamma": settings.gamma,
            "expectile": settings.expectile,
            "weight_temp": settings.temperature,
        },
    }
    if algorithm in ("cql", "bcq"):
        each[algorithm]["target_update_interval"] = 200
    return getattr(d3rlpy.algos, str(name))(**common, **each[algorithm])


def _networks(recipe: Recipe, modules: Any) -> nn.ModuleDict:
    """Our networks with the weights of d3rlpy's."""
    found: dict[str, list[nn.Linear]] = {}
    if recipe.decision in ("best", "constrained"):
        for i, critic in enumerate(modules.q_funcs):
            found[f"critic_{i}"] = _linear(critic, "_fc")
    if recipe.decision in ("constrained", "likeliest"):
        found["imitator"] = _linear(modules.imitator, "_fc")
    if recipe.decision == "mean":
        head = "_fc" if recipe.algo == "bc" else "_mu"
        found["actor"] = _linear(modules.imitator if recipe.algo == "bc" else modules.policy, head)
    networks = recipe.build()
    state = {
        f"{name}.{2 * place}.{part}": getattr(layer, part).detach().clone()
        for name, layers in found.items()
        for place, layer in enumerate(layers)
        for part in ("weight", "bias")
    }
    networks.load_state_dict(state, assign=True)
    return networks


def _linear(module: Any, head: str) -> list[nn.Linear]:
    """The linear layers of d3rlpy's encoder, and the head's."""
    return [m for m in module._encoder.modules() if isinstance(m, nn.Linear)] + [getattr(module, head)]


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """d3rlpy draws from the process's generators: seed them for this block, and leave them as they were."""
    plain, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(plain)
            np.random.set_state(numpy)


@contextmanager
def _quiet() -> Iterator[None]:
    """d3rlpy logs by structlog, each run's whole configuration: warnings alone in this block."""
    import structlog

    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    try:
        yield
    finally:
        structlog.configure(**before)


def main(argv: list[str] | None = None) -> int:
    """The command line; the exit status is 2 where nothing could be learned, and the message says why."""
    parser = argparse.ArgumentParser(prog="python -m agents.offline.train", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--log", type=Path, required=True, help="a file of agents.offline.make")
    parser.add_argument("--algorithm", choices=sorted(ALGORITHMS), default="cql")
    parser.add_argument("--updates", type=whole(10, 10**7), default=Settings.updates)
    parser.add_argument("--batch", type=whole(1, 1 << 16), default=Settings.batch)
    parser.add_argument("--cost-weight", type=number(0, 1e6), default=0.0, help="what one unit of safety cost is worth")
    parser.add_argument("--alpha", type=number(0, 1e6), default=Settings.alpha, help="of cql")
    parser.add_argument("--seed", type=whole(0, 2**32 - 1), default=0)
    parser.add_argument("--threads", type=whole(1, MOST_THREADS), default=1, help="torch threads on the CPU")
    parser.add_argument("--fresh", action="store_true", help="learn anew even if --out holds this policy")
    parser.add_argument("--out", type=folder, required=True, help="folder for the policy")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    settings = Settings(args.updates, args.batch, cost_weight=args.cost_weight, alpha=args.alpha, seed=args.seed)
    try:
        logged = load(args.log)
        if not args.fresh and _there(args.out, args.algorithm, logged, settings):
            print(f"policy in {args.out} is this one already")
            return 0
        learn(logged, args.algorithm, args.out, settings)
    except (ValueError, OSError, ImportError) as error:
        parser.exit(2, f"error: {error}\n")
    print(f"policy in {args.out}")
    return 0


def _there(out: Path, algorithm: str, logged: Logged, settings: Settings) -> bool:
    """Whether the folder holds what would be learned; another policy there is an error.

    Raises:
        ValueError: it holds another.
    """
    if not (out / FORM.json).exists():
        return False
    recipe = load_networks(out)[0]
    wanted = json.loads(json.dumps({**asdict(logged.about), "settings": asdict(settings)}))
    if recipe.algo != algorithm or dict(recipe.learned_from) != wanted:
        raise ValueError(f"{out} holds a policy learned otherwise ({recipe.algo}); name another folder, or --fresh")
    return True


if __name__ == "__main__":
    raise SystemExit(main())
