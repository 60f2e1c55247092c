"""A policy that `agents.ppo` trained, without its exploration: how it is loaded, and what it remembers of patients."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from agents import run_folder
from agents.network import Network, output_of
from world_models import tree
from world_models.tensor_file import CheckpointError

__all__ = ["Trained", "load", "pushed"]

_MOST = 1 << 20  # of a width or a history that a file asks for


def pushed(history: Tensor, observation: Tensor, fresh: Tensor) -> Tensor:
    """The last k observations [B, k, n] with another [B, n] at their end; where fresh bool [B], all are that one."""
    if history.shape[1] == 1:
        return observation.unsqueeze(1)
    moved = torch.cat([history[:, 1:], observation.unsqueeze(1)], 1)
    return torch.where(fresh.view(-1, 1, 1), observation.unsqueeze(1), moved)


class Trained:
    """A trained policy without exploration, as `agents.protocol.Policy` has it."""

    def __init__(self, network: Network, inputs: int, history: int, masked: bool) -> None:
        self.network, self.inputs, self.masked = network, inputs, masked
        self._longest = history
        self._seen: Tensor | None = None  # [B, history, inputs]
        self._fresh: Tensor | None = None  # bool [B]: new patients

    def reset(self, rows: Tensor | None) -> None:
        """Forget what was seen of all patients, or of those of bool [B]."""
        if rows is None or self._seen is None:
            self._seen = self._fresh = None
        else:
            self._fresh = rows if self._fresh is None else self._fresh | rows

    def narrow(self, rows: Tensor) -> None:
        """Go on with the patients int64 [K] alone."""
        self._seen, self._fresh = tree.take((self._seen, self._fresh), rows)

    @torch.no_grad()
    def decide(self, seen: Tensor, mask: Tensor | None) -> Tensor:
        """The likeliest actions [B] or [B, D]."""
        if self._seen is None:
            self._seen = seen.unsqueeze(1).repeat(1, self._longest, 1)
        else:
            fresh = torch.zeros(len(seen), dtype=torch.bool, device=seen.device) if self._fresh is None else self._fresh
            self._seen = pushed(self._seen, seen, fresh)
        self._fresh = None
        output = self.network.output
        given = self.network.policy(self._seen.flatten(1), None if mask is None else output.laid_out(mask))
        return output.released(output.mode(given))


def load(folder: Path, device: torch.device | str = "cpu") -> tuple[Trained, dict[str, Any]]:
    """The policy of a folder, and what is told of it.

    Raises:
        FileNotFoundError: a file is missing.
        CheckpointError: a file is damaged or altered, or its JSON describes no policy.
    """
    with run_folder.POLICY.opened(folder) as found:
        told = found.config
        try:
            hidden, history = tuple(told["preset"]["hidden"]), told["preset"]["history"]
            if not all(type(n) is int and 1 <= n <= _MOST for n in (*hidden, history)):
                raise ValueError(f"hidden={hidden} and history={history} are not whole numbers of at least 1")
            inputs = int(math.prod(run_folder.space_from_json(told["observation"]).shape or ()))
            output = output_of(run_folder.space_from_json(told["action"]), device)
        except (KeyError, TypeError, ValueError, ArithmeticError, AssertionError) as error:
            raise CheckpointError(f"{folder} describes no policy ({error!r}); train it again") from error
        # of actor alone: the critic decides nothing
        shapes = Network.shapes(inputs * history, output, 0, hidden)
        wanted = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
        tensors = found.tensors(run_folder.TENSORS, wanted)
    network = Network(inputs * history, output, 0, hidden, device)
    network.load(tensors)
    return Trained(network, inputs, history, told.get("masked") is True), told
