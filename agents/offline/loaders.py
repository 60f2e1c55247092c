"""A log as other libraries take it: plain tensors, d3rlpy's MDPDataset, SCOPE-RL's logged data set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from agents.offline.coding import Coding
from agents.offline.logged import Logged

if TYPE_CHECKING:
    from d3rlpy.dataset import MDPDataset

__all__ = ["Transitions", "as_d3rlpy", "as_scope_rl", "as_transitions", "d3rlpy_of"]


class Transitions(NamedTuple):
    """All S steps of a log, one after the other."""

    observation: Tensor  # float32 [S, n]
    choice: Tensor  # [S, D], see `agents.offline.choices`
    reward: Tensor  # float32 [S]
    cost: Tensor  # float32 [S]
    next_observation: Tensor  # float32 [S, n]
    terminated: Tensor  # bool [S]
    truncated: Tensor  # bool [S]
    log_prob: Tensor  # float32 [S], nominal: what the charts alone tell
    stay: Tensor  # int64 [S]: row of the log


def as_transitions(logged: Logged) -> Transitions:
    """Plain tensors."""
    here = logged.here
    stay = torch.arange(len(here)).unsqueeze(-1).expand_as(here)
    return Transitions(
        logged.observation[:, :-1][here],
        logged.choice[here],
        logged.reward[here],
        logged.cost[here],
        logged.observation[:, 1:][here],
        logged.terminated[here],
        logged.truncated[here],
        logged.nominal_log_prob[here],
        stay[here],
    )


def d3rlpy_of() -> Any:
    """The library.

    Raises:
        ImportError: it is not installed; the message says how to install it.
    """
    try:
        import d3rlpy
    except ImportError as error:
        raise ImportError(
            'd3rlpy is not installed: pip install "clinenv[offline]", then pip install --no-deps "d3rlpy>=2.8,<3" (its '
            "own requirements name an older Gymnasium, which it does not need for logged data)"
        ) from error
    return d3rlpy


def as_d3rlpy(logged: Logged, coding: Coding, cost_weight: float = 0.0) -> MDPDataset:
    """A d3rlpy MDPDataset; its reward is reward - cost_weight * cost.

    The end of an episode is the end: the tasks end by a hour that the chart shows, so nothing is bootstrapped from
    what would have followed.

    Raises:
        ImportError: d3rlpy is not installed.
    """
    d3rlpy = d3rlpy_of()
    steps = as_transitions(logged)
    action = coding.encode(steps.choice)
    space = d3rlpy.ActionSpace.DISCRETE if coding.discrete else d3rlpy.ActionSpace.CONTINUOUS
    return d3rlpy.dataset.MDPDataset(
        observations=steps.observation.numpy(),
        actions=(action.unsqueeze(-1) if coding.discrete else action).numpy(),
        rewards=(steps.reward - cost_weight * steps.cost).numpy(),
        terminals=(steps.terminated | steps.truncated).numpy().astype(np.float32),
        action_space=space,
        action_size=coding.size,
    )


def as_scope_rl(logged: Logged) -> dict[str, Any]:
    """SCOPE-RL's LoggedDataset (version 0.2.1, `scope_rl.dataset.SyntheticDataset.obtain_episodes`): all trajectories
    of the same number of steps, one after the other.

    What ended sooner goes on with action 0, of probability 1, and reward 0. The joint density of several amounts stands
    in the first column of `pscore`, whose columns SCOPE-RL multiplies.

    Raises:
        ValueError: levels or switches, for which SCOPE-RL has no kind of action.
    """
    about = logged.about
    if about.action_kind not in ("menu", "doses"):
        raise ValueError(
            f"SCOPE-RL knows one discrete choice or a vector of amounts, no {about.action_kind}; take {about.env_id}'s "
            "menu or doses, or `as_transitions`"
        )
    count, width = logged.reward.shape
    menu = about.action_kind == "menu"
    last = torch.zeros(count, width)
    last[:, -1] = 1.0
    ended = (logged.terminated | logged.truncated | ~logged.here).to(torch.float32)
    propensity = torch.where(logged.here, logged.nominal_log_prob, 0.0).exp()
    action = logged.choice.flatten(0, 1)
    pscore = propensity.flatten().to(torch.float64).numpy()
    if not menu:
        pscore = np.concatenate([pscore[:, None], np.ones((len(pscore), action.shape[1] - 1))], 1)
    flat = {"cost": logged.cost, **{f"reward_{name}": value for name, value in logged.terms.items()}}
    return {
        "size": count * width,
        "n_trajectories": count,
        "step_per_trajectory": width,
        "action_type": "discrete" if menu else "continuous",
        "n_actions": len(about.action_labels) if menu else None,
        "action_dim": None if menu else action.shape[1],
        "action_keys": None if menu else list(about.action_labels),
        "action_meaning": dict(enumerate(about.action_labels)) if menu else None,
        "state_dim": logged.observation.shape[-1],
        "state_keys": list(about.observation_names),
        "state": logged.observation[:, :-1].flatten(0, 1).numpy(),
        "action": (action.squeeze(-1) if menu else action).numpy(),
        "reward": logged.reward.flatten().to(torch.float64).numpy(),
        "done": torch.maximum(ended, last).flatten().to(torch.float64).numpy(),
        "terminal": last.flatten().to(torch.float64).numpy(),
        "info": {name: value.flatten().to(torch.float64).numpy() for name, value in flat.items()},
        "pscore": pscore,
        "behavior_policy": about.behaviour,
        "dataset_id": 0,
    }
