"""The predictor of the next latent, chains of it, and what nature lets an action be.

Which transitions can be undone stands in `quantities.progression` as facts on diseases; here they judge actions before
they are imagined, and the model's own reversals afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from world_models.cardiac_jepa.projector import normed_layers
from world_models.data import icd10
from world_models.quantities.progression import becomes, lasts, scars

__all__ = [
    "Dynamics",
    "ImpossibleActionError",
    "PlainDynamics",
    "Reversal",
    "action_of",
    "chain",
    "check_actions",
    "reversal_error",
    "reversible",
]

Predict = Callable[[Tensor, Tensor, Tensor], Tensor]  # z [B, Z], action [B, C], days [B] -> next z [B, Z]


class ImpossibleActionError(ValueError):
    """A transition that cannot happen to this patient, or a code that the model does not have."""


class _Block(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.layers = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Dynamics(nn.Module):
    """z + f(z, e): a residual MLP whose last layer starts at zero, so that at first nothing changes anybody.

    Args:
        latent: size of z.
        embedding: size of e; 0: there is none (naive self-supervision).
    """

    def __init__(self, latent: int, embedding: int, hidden: int, blocks: int):
        super().__init__()
        self.inlet = nn.Linear(latent + embedding, hidden)
        self.blocks = nn.Sequential(*[_Block(hidden) for _ in range(blocks)])
        last = nn.Linear(hidden, latent)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.outlet = nn.Sequential(nn.LayerNorm(hidden), nn.SiLU(), last)

    def forward(self, z: Tensor, e: Tensor | None = None) -> Tensor:
        """Next latent [B, latent] from z [B, latent] and the action's embedding e [B, embedding]."""
        return z + self.outlet(self.blocks(self.inlet(z if e is None else torch.cat([z, e], dim=-1))))


class PlainDynamics(nn.Module):
    """f(z, e): the predictor of the authors' public code, one hidden layer with BatchNorm and GELU, no residual."""

    def __init__(self, latent: int, embedding: int, hidden: int):
        super().__init__()
        self.layers = normed_layers(latent + embedding, hidden, latent)

    def forward(self, z: Tensor, e: Tensor | None = None) -> Tensor:
        """Next latent [B, latent] from z [B, latent] and the action's embedding e [B, embedding]."""
        return self.layers(z if e is None else torch.cat([z, e], dim=-1))


def chain(predict: Predict, z: Tensor, actions: Tensor, days: Tensor) -> Tensor:
    """The latents [B, H, Z] after each of H actions [B, H, C] that follow each other after days [B, H]."""
    path = []
    for h in range(actions.shape[1]):
        z = predict(z, actions[:, h], days[:, h])
        path.append(z)
    return torch.stack(path, dim=1) if path else z.new_zeros(z.shape[0], 0, z.shape[1])


def action_of(codes: Sequence[str], onset: Sequence[str] = (), resolve: Sequence[str] = ()) -> Tensor:
    """The transition vector [C] that sets some codes in and resolves others.

    A code that is not among `codes` is read as the lowest level above it that is, down to its category: "I48.91" as
    "I48.9", or else as "I48".

    Raises:
        ImpossibleActionError: a code not among `codes`, nor any such level (the message suggests the nearest), or one
            that both sets in and resolves.
    """
    codes = tuple(codes)
    action = torch.zeros(len(codes))
    for given, sign in ((onset, 1.0), (resolve, -1.0)):
        for code in (given,) if isinstance(given, str) else given:
            index = _index(codes, code)
            if action[index] == -sign:
                raise ImpossibleActionError(f"{codes[index]} is to set in and to resolve at once; leave one out")
            action[index] = sign
    return action


def _index(codes: tuple[str, ...], code: str) -> int:
    if code in codes:
        return codes.index(code)
    try:
        chapter, block, category, *finer = icd10.path(code)
    except ValueError as error:
        raise ImpossibleActionError(f"{error}. This model has {_some(codes)}") from None
    column = {icd10.plain(c): i for i, c in enumerate(codes)}
    for level in (*reversed(finer), category):
        if icd10.plain(level) in column:
            return column[icd10.plain(level)]
    paths = {c: icd10.path(c) for c in codes}
    near = [c for c in codes if paths[c][0] == chapter]
    near = [c for c in near if paths[c][1] == block] or near
    near = sorted(near, key=lambda c: (_apart(c, category), c))[:3]
    such = f"the nearest it has: {', '.join(near)}" if near else f"none of chapter {chapter}; it has {_some(codes)}"
    raise ImpossibleActionError(
        f"this model has no code {code!r} ({category}, block {block}); {such}. "
        "Choose one of its codes, or extend its action projector (`with_codes`)"
    )


def _some(codes: Sequence[str], most: int = 100) -> str:
    more = f" and {len(codes) - most} more" if len(codes) > most else ""
    return ", ".join(codes[:most]) + more


def _apart(code: str, category: str) -> int:
    """How far a code's category lies from another of the same chapter."""
    return abs(int(icd10.plain(code)[:3], 36) - int(category, 36))


def check_actions(condition: Tensor, action: Tensor, codes: Sequence[str]) -> None:
    """Let the transitions action [B, C] of patients with condition bool [B, C] pass, if they can happen.

    Raises:
        ImpossibleActionError: names the first row and code in the way and why: a value that is not -1, 0 or 1, the
            onset of what is there, the resolution of what is not there or never goes, or of an acute infarction without
            its scar.
        ValueError: shapes that do not fit each other or the codes.
    """
    codes = tuple(codes)
    if condition.shape != action.shape or action.ndim != 2 or action.shape[1] != len(codes):
        raise ValueError(
            f"condition and action must both be [B, {len(codes)}], got {list(condition.shape)} and {list(action.shape)}"
        )
    there = condition.bool()
    onset, gone = action == 1, action == -1
    scar_lacks = torch.zeros_like(gone)
    pairs = scars(codes)
    for i, _ in pairs:
        scar_lacks[:, i] = gone[:, i]
    for i, j in pairs:  # any code of the scar's will do
        scar_lacks[:, i] &= ~(there[:, j] | onset[:, j])
    lasting = torch.tensor([lasts(code) for code in codes], device=action.device)
    for wrong, reason in (
        (~(onset | gone | (action == 0)), "a transition is -1 (resolves), 0 (stays) or 1 (sets in), not {value:g}"),
        (gone & ~there, "it cannot resolve: the patient does not have it"),
        (onset & there, "it cannot set in: the patient has it already"),
        (gone & lasting, "it cannot resolve: it is irreversible"),
        (scar_lacks, "it cannot resolve without leaving {scar}: let {scar} set in with it"),
    ):
        if bool(wrong.any()):
            row, column = wrong.nonzero()[0].tolist()
            why = reason.format(value=float(action[row, column]), scar=becomes(codes[column]))
            raise ImpossibleActionError(f"row {row}, {codes[column]}: {why}")


def reversible(action: Tensor, codes: Sequence[str]) -> Tensor:
    """bool [B]: whether the opposite transition may follow action [B, C].

    Not after the onset of something that stays for ever, nor after that of an acute infarction, which leaves a scar.
    """
    lasting = torch.tensor([lasts(code) or becomes(code) is not None for code in codes], device=action.device)
    return ~((action > 0) & lasting).any(-1)


class Reversal(NamedTuple):
    """|Dyn(Dyn(z, a), -a) - z|^2 over |Dyn(z, a) - z|^2, each a mean over pairs; NaN where there is none."""

    reversible: float
    irreversible: float
    pairs: int  # reversible ones
    irreversible_pairs: int


@torch.no_grad()
def reversal_error(predict: Predict, z: Tensor, action: Tensor, days: Tensor, codes: Sequence[str]) -> Reversal:
    """How far the model comes back when a transition is taken back: those that nature undoes, and those it does not.

    0: exactly back; 1: as far off as before. Rows without a change are left out.
    """
    there = predict(z, action, days)
    back = (predict(there, -action, days) - z).square().sum(-1)
    moved = (there - z).square().sum(-1)
    changed = action.ne(0).any(-1)
    can = reversible(action, codes)
    groups = (changed & can, changed & ~can)
    ratios = [float(back[rows].sum() / moved[rows].sum()) if bool(rows.any()) else float("nan") for rows in groups]
    return Reversal(ratios[0], ratios[1], int(groups[0].sum()), int(groups[1].sum()))
