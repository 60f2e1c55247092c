"""What a policy of `agents.ppo` is: a network's numbers, read as choices or as amounts; its gradients are written out.

Small networks leave no time for autograd: of a gradient step on 512 rows it took half. So backpropagation through two
towers and the gradients of log chances and entropies are written out here, and tests/agents/test_ppo.py holds them
against autograd. Numbers are rows and patients are columns: softmax over nine choices, and products with nine columns,
take a fifth of the time of the same the other way round.

Shapes: B patients; D entries of an action, M the most choices that an entry has; A amounts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from gymnasium import Space, spaces
from torch import Tensor, nn

__all__ = ["Amounts", "Choices", "Network", "Output", "output_of"]

_NEVER = -1e9  # a logit: the choice has no chance, and chance times logarithm is still 0
_ALIGNED = 16  # numbers: each parameter begins at a multiple, as matrix products like it


class Output(Protocol):
    """How the numbers that a network puts out are read as a distribution of actions, called `given` here."""

    width: int  # numbers that the network puts out
    amounts: int  # further parameters of the policy, which no network puts out

    def given(self, out: Tensor, mask: Tensor | None, log_sd: Tensor) -> Tensor:
        """The distribution, of the output [width, B], the mask [M * D, B] or None, and the parameters [amounts]."""

    def draw(self, given: Tensor, generator: torch.Generator) -> Tensor:
        """An action [D, B] by its chance."""

    def mode(self, given: Tensor) -> Tensor:
        """The likeliest action [D, B]."""

    def log_prob(self, given: Tensor, action: Tensor) -> Tensor:
        """Logarithm of the chance or density [B] of an action."""

    def gradient(self, given: Tensor, action: Tensor, by_log_prob: Tensor, by_entropy: float) -> tuple[Tensor, Tensor]:
        """A loss's gradient by the output [width, B] (below it those by `amounts` further parameters, a column a
        patient), from its gradients by log_prob [B] and by each patient's entropy; and the entropies [B]."""

    def released(self, action: Tensor) -> Tensor:
        """The action as the environment takes it, [B] or [B, D]."""

    def laid_out(self, mask: Tensor) -> Tensor:
        """The mask bool [B, choices] of `clinenv.codec.Codec.choices` as bool [B, M * D], to be transposed."""


class Choices:
    """Of Discrete, MultiDiscrete and MultiBinary actions: a logit for each choice of each entry.

    An action is int64 [D, B], `given` holds log chances float32 [M, D, B].
    """

    amounts = 0

    def __init__(self, space: Space, device: torch.device | str) -> None:
        if isinstance(space, spaces.Discrete):
            counts = [int(space.n)]
        elif isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
            counts = [int(n) for n in space.nvec]
        elif isinstance(space, spaces.MultiBinary):
            counts = [2] * int(math.prod(space.shape))
        else:
            raise ValueError(f"{space} has no choices; a policy puts out Discrete, MultiDiscrete, MultiBinary or a Box")
        self._single = isinstance(space, spaces.Discrete)
        entries, most = len(counts), max(counts)
        self._shape, self.width = (most, entries), most * entries
        # the environment's masks go entry after entry, the rows here choice after choice
        place = [choice * entries + entry for entry, count in enumerate(counts) for choice in range(count)]
        self._place = torch.tensor(place, device=device)
        there = torch.zeros(self.width, dtype=torch.bool, device=device).index_fill_(0, self._place, True)
        self._there = None if bool(there.all()) else there.view(most, entries, 1)

    def laid_out(self, mask: Tensor) -> Tensor:
        """See `Output`."""
        laid = torch.zeros(len(mask), self.width, dtype=torch.bool, device=mask.device)
        return laid.index_copy_(1, self._place, mask)

    def given(self, out: Tensor, mask: Tensor | None, log_sd: Tensor) -> Tensor:
        """Log chances [M, D, B]; of what the mask forbids about -1e9."""
        logits = out.view(*self._shape, -1)
        if mask is not None:
            logits = logits.masked_fill(~mask.view(logits.shape), _NEVER)
        elif self._there is not None:
            logits = logits.masked_fill(~self._there, _NEVER)
        return logits.log_softmax(0)

    def draw(self, given: Tensor, generator: torch.Generator) -> Tensor:
        """int64 [D, B]: of M exponential clocks, the one that rings first."""
        clocks = torch.empty_like(given).exponential_(generator=generator)
        return (given - clocks.log_()).argmax(0)

    def mode(self, given: Tensor) -> Tensor:
        """int64 [D, B]."""
        return given.argmax(0)

    def log_prob(self, given: Tensor, action: Tensor) -> Tensor:
        """The sum [B] over the entries."""
        return given.gather(0, action.unsqueeze(0)).sum((0, 1))

    def gradient(self, given: Tensor, action: Tensor, by_log_prob: Tensor, by_entropy: float) -> tuple[Tensor, Tensor]:
        """By the logits, [M * D, B]."""
        chance = given.exp()
        entropy = -(chance * given).sum(0)  # [D, B]
        gradient = chance * -by_log_prob
        gradient.scatter_add_(0, action.unsqueeze(0), by_log_prob.expand(1, *action.shape))
        gradient.sub_((given + entropy).mul_(chance), alpha=by_entropy)
        return gradient.flatten(0, 1), entropy.sum(0)

    def released(self, action: Tensor) -> Tensor:
        """int64 [B] of a Discrete action, else [B, D]."""
        return action[0] if self._single else action.T


class Amounts:
    """Of a Box: the mean of each entry, -1 its lower bound and 1 its upper; the SDs are parameters of their own.

    An action is float32 [A, B] as it was drawn, also beyond the bounds, where what is given ends. `given` holds means
    and log SDs float32 [2, A, B].
    """

    def __init__(self, space: Space, device: torch.device | str) -> None:
        if not isinstance(space, spaces.Box) or len(space.shape) != 1 or not space.is_bounded():
            raise ValueError(f"{space} is no bounded row of amounts")
        self.width = self.amounts = space.shape[0]
        low, high = (torch.as_tensor(x, dtype=torch.float32, device=device) for x in (space.low, space.high))
        self._low, self._high = low, high
        self._middle, self._half = (low + high) / 2, (high - low) / 2

    def laid_out(self, mask: Tensor) -> Tensor:
        """Raises ValueError: amounts are not masked."""
        raise ValueError("amounts have no choices to mask")

    def given(self, out: Tensor, mask: Tensor | None, log_sd: Tensor) -> Tensor:
        """Means and log SDs [2, A, B]."""
        return torch.stack([out, log_sd.unsqueeze(1).expand_as(out)])

    def draw(self, given: Tensor, generator: torch.Generator) -> Tensor:
        """float32 [A, B]."""
        mean, log_sd = given
        return mean + log_sd.exp() * torch.empty_like(mean).normal_(generator=generator)

    def mode(self, given: Tensor) -> Tensor:
        """float32 [A, B]."""
        return given[0]

    def log_prob(self, given: Tensor, action: Tensor) -> Tensor:
        """Of the normal density, [B]."""
        mean, log_sd = given
        z = (action - mean) * (-log_sd).exp()
        return -(0.5 * z.square() + log_sd + 0.5 * math.log(2 * math.pi)).sum(0)

    def gradient(self, given: Tensor, action: Tensor, by_log_prob: Tensor, by_entropy: float) -> tuple[Tensor, Tensor]:
        """By the means, then by each patient's log SDs: [2 A, B]."""
        mean, log_sd = given
        narrow = (-log_sd).exp()
        z = (action - mean) * narrow
        entropy = (log_sd + 0.5 * math.log(2 * math.pi * math.e)).sum(0)
        return torch.cat([z * narrow * by_log_prob, (z.square() - 1.0) * by_log_prob + by_entropy]), entropy

    def released(self, action: Tensor) -> Tensor:
        """float32 [B, A] within the bounds of the environment."""
        return torch.clamp((action.T * self._half) + self._middle, self._low, self._high)


def output_of(space: Space, device: torch.device | str) -> Output:
    """How a policy for this action space is read.

    Raises:
        ValueError: the space has neither choices nor bounded amounts.
    """
    return Amounts(space, device) if isinstance(space, spaces.Box) else Choices(space, device)


class _Tower:
    """Linear layers with tanh between them, on (weight [out, in], bias [out]) and gradients that are given."""

    def __init__(self, parameters: Sequence[tuple[Tensor, Tensor]], gradients: Sequence[tuple[Tensor, Tensor]]) -> None:
        self._layers = list(zip(parameters, gradients, strict=True))
        self._inputs: list[Tensor] = []
        self._minus_one = torch.tensor(-1.0)  # without dimensions it stands on every device

    def forward(self, x: Tensor) -> Tensor:
        """The output [out, B] of x [in, B]."""
        *hidden, ((weight, bias), _) = self._layers
        self._inputs = [x]
        for (w, b), _ in hidden:
            # tanh z = 2 sigmoid(2 z) - 1: on a CPU torch's own tanh takes ten times as long as its sigmoid
            half = torch.addmm(b.unsqueeze(1), w, x, beta=2, alpha=2).sigmoid_()
            x = torch.add(self._minus_one, half, alpha=2, out=half)
            self._inputs.append(x)
        return torch.addmm(bias.unsqueeze(1), weight, x)

    def backward(self, gradient: Tensor) -> None:
        """From a loss's gradient by the last output to those by all parameters, which are overwritten."""
        for i in reversed(range(len(self._layers))):
            (weight, _), (by_weight, by_bias) = self._layers[i]
            x = self._inputs[i]
            torch.mm(gradient, x.T, out=by_weight)
            torch.sum(gradient, 1, out=by_bias)
            if i:
                gradient = torch.ops.aten.tanh_backward(weight.T @ gradient, x)


class Network:
    """Actor and critic, two towers of one shape, and the policy's further parameters: all views of one vector, so that
    a step along the gradient is a few operations.

    Args:
        inputs: numbers that it sees.
        output: how the actor is read.
        values: how many returns the critic foretells; 0: there is no critic.
        hidden: widths of the layers between.
        vector: that the parameters are views of; None: a new one, of zeros.
    """

    @staticmethod
    def shapes(inputs: int, output: Output, values: int, hidden: Sequence[int]) -> dict[str, tuple[int, ...]]:
        """The parameters by name, before memory is taken for them."""
        shapes: dict[str, tuple[int, ...]] = {}
        for name, last in (("actor", output.width), ("critic", values)):
            widths = [inputs, *hidden, last] if last else []
            for i, (before, after) in enumerate(zip(widths, widths[1:], strict=False)):
                shapes[f"{name}.{i}.weight"], shapes[f"{name}.{i}.bias"] = (after, before), (after,)
        if output.amounts:
            shapes["log_sd"] = (output.amounts,)
        return shapes

    def __init__(
        self,
        inputs: int,
        output: Output,
        values: int,
        hidden: Sequence[int],
        device: torch.device | str,
        vector: Tensor | None = None,
    ) -> None:
        self.output, self._sizes = output, (inputs, values, hidden, device)
        shapes = self.shapes(inputs, output, values, hidden)
        length = sum(-(-math.prod(shape) // _ALIGNED) * _ALIGNED for shape in shapes.values())
        self.vector = torch.zeros(length, device=device) if vector is None else vector
        self.gradient = torch.zeros_like(self.vector)
        self.parameters, self._gradients = (_views(x, shapes) for x in (self.vector, self.gradient))
        self._log_sd = self.parameters.get("log_sd", self.vector[:0])
        self._actor, self._critic = (
            _Tower(*(_layers(found, name) for found in (self.parameters, self._gradients)))
            for name in ("actor", "critic")
        )

    def over(self, vector: Tensor) -> Network:
        """The same network on other parameters, views of a vector of this one's length."""
        inputs, values, hidden, device = self._sizes
        return Network(inputs, self.output, values, hidden, device, vector)

    def initialise(self, log_sd: float, generator: torch.Generator) -> None:
        """Orthogonal weights (Saxe et al. 2014, arXiv 1312.6120), the actor's last so small that it begins even."""
        for tower, last_gain in (("actor", 0.01), ("critic", 1.0)):
            *hidden, last = (weight for weight, _ in _layers(self.parameters, tower))
            for weight, gain in [*((w, math.sqrt(2.0)) for w in hidden), (last, last_gain)]:
                drawn = torch.empty(weight.shape)  # on the CPU: the same numbers for every device
                weight.copy_(nn.init.orthogonal_(drawn, gain, generator=generator))
        self._log_sd.fill_(log_sd)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over parameters by their names."""
        for name, value in self.parameters.items():
            value.copy_(tensors[name])

    def policy(self, seen: Tensor, mask: Tensor | None) -> Tensor:
        """What `output` calls `given`, of seen [B, inputs] and a mask as `output.laid_out` makes it."""
        return self.output.given(self._actor.forward(seen.T), None if mask is None else mask.T, self._log_sd)

    def values(self, seen: Tensor) -> Tensor:
        """The returns [values, B] that the critic foretells."""
        return self._critic.forward(seen.T)

    def rescale_values(self, factor: Tensor, shift: Tensor) -> None:
        """Have the critic foretell factor [values] times what it did, and shift [values] more."""
        weight, bias = _layers(self.parameters, "critic")[-1]
        weight.mul_(factor.unsqueeze(1))
        bias.mul_(factor).add_(shift)

    def policy_backward(self, by_output: Tensor) -> None:
        """The actor's gradients, from those [width + amounts, B] by what it put out last."""
        if self.output.amounts:
            torch.sum(by_output[self.output.width :], 1, out=self._gradients["log_sd"])
        self._actor.backward(by_output[: self.output.width])

    def values_backward(self, by_values: Tensor) -> None:
        """The critic's gradients, from those [values, B] by what it put out last."""
        self._critic.backward(by_values)


def _layers(tensors: Mapping[str, Tensor], tower: str) -> list[tuple[Tensor, Tensor]]:
    """Weights and biases of a tower, first layer first."""
    names = [name.removesuffix(".weight") for name in tensors if name.startswith(tower) and name.endswith(".weight")]
    return [(tensors[f"{name}.weight"], tensors[f"{name}.bias"]) for name in names]


def _views(vector: Tensor, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """The parts of a vector, each in its shape."""
    found, start = {}, 0
    for name, shape in shapes.items():
        size = math.prod(shape)
        found[name] = vector[start : start + size].view(shape)
        start += -(-size // _ALIGNED) * _ALIGNED
    return found
