"""What a learner of one action takes for a task's choices: numbers of a list, or a vector in [-1, 1].

- menu: the row itself;
- book: the number of one of the commonest choices of a log (sets of switches, levels). A choice that is not in it
  counts as the nearest that is, by the number of entries that differ; a policy learned so decides within it alone;
- box: a vector; a switch is on above 0, an amount is the number itself, and nothing is NOTHING.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from agents.offline.logged import Logged

__all__ = ["Coding", "coding_of"]

KINDS = ("menu", "book", "box")
NOTHING = -0.5  # of an amount: far enough below 0 that a mean over mostly nothing gives nothing, and no further
BOOK_SIZE = 256
_AT_ONCE = 4096  # choices compared with the book in one piece


@dataclass(frozen=True)
class Coding:
    """Between choices [B, D] (`agents.offline.choices`) and a learner's actions."""

    kind: str  # of KINDS
    action_kind: str  # the task's: menu, levels, switches or doses
    size: int  # of a list, or of a vector
    book: Tensor | None = None  # int64 [size, D]

    @property
    def discrete(self) -> bool:
        """Whether actions are numbers of a list."""
        return self.kind != "box"

    def encode(self, choice: Tensor) -> Tensor:
        """Actions int64 [B] of a list, or float32 [B, size], of choices [B, D]."""
        if self.kind == "menu":
            return choice.squeeze(-1)
        if self.kind == "box":
            if self.action_kind == "switches":
                return choice.to(torch.float32) * 2.0 - 1.0
            return torch.where(choice > 0, choice, NOTHING)
        assert self.book is not None
        near = [(rows.unsqueeze(1) != self.book).sum(-1).argmin(-1) for rows in choice.split(_AT_ONCE)]
        return torch.cat(near)

    def decode(self, action: Tensor) -> Tensor:
        """The choices [B, D] of actions."""
        if self.kind == "menu":
            return action.unsqueeze(-1)
        if self.kind == "box":
            return (action > 0).to(torch.int64) if self.action_kind == "switches" else action.clamp(0.0, 1.0)
        assert self.book is not None
        return self.book.to(action.device)[action]


def coding_of(logged: Logged, kind: str, book_size: int = BOOK_SIZE) -> Coding:
    """The coding of a log's choices.

    Raises:
        ValueError: an unknown kind, or one that does not go with the log's kind of action.
    """
    action_kind = logged.about.action_kind
    fits = {"menu": ("menu",), "levels": ("book",), "switches": ("book", "box"), "doses": ("box",)}[action_kind]
    if kind not in fits:
        raise ValueError(f"coding {kind!r} does not go with {action_kind}; choose one of {', '.join(fits)}")
    if kind == "menu":
        return Coding(kind, action_kind, len(logged.about.action_labels))
    if kind == "box":
        return Coding(kind, action_kind, logged.choice.shape[-1])
    sets, counts = logged.choice[logged.here].unique(dim=0, return_counts=True)
    book = sets[counts.argsort(descending=True, stable=True)[:book_size]]
    return Coding(kind, action_kind, len(book), book)
