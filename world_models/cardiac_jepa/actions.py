"""Action projectors: from what changed in the diagnoses, and the time it took, to the embedding that moves the latent.

`BinaryAction` is the paper's: an MLP on a in {-1, 0, 1}^C, so that an onset and its resolution are opposite inputs and
a day equals a year. `EmbeddedAction` is the way past it that the paper names and does not take: a learned vector for
each onset and each resolution, the sum of one of its chapter in ICD-10, one of its block, one of its category and so on
down to the code's own, joined with the elapsed time. A code never seen in training moves the latent as the level above
it does.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from world_models import keys
from world_models.cardiac_jepa.config import JEPAConfig
from world_models.cardiac_jepa.projector import normed_layers
from world_models.data import icd10
from world_models.nn.mlp import mlp

__all__ = ["BinaryAction", "EmbeddedAction", "action_projector"]

ONSET, RESOLUTION = 0, 1
SCALES_DAYS = (0.25, 1.0, 4.0, 14.0, 60.0, 180.0, 730.0, 3650.0)  # a stay's hours to a decade
_SPREAD = 0.1  # of the blocks' and chapters' first vectors


class BinaryAction(nn.Module):
    """An MLP on the transition vector alone; the elapsed time is taken and not used.

    With `normed` its hidden layer has BatchNorm and GELU, as in the authors' code.
    """

    def __init__(self, codes: Sequence[str], embedding: int, hidden: int, normed: bool = False):
        super().__init__()
        self.codes = tuple(codes)
        sizes = (len(self.codes), hidden, embedding)
        self.layers = normed_layers(*sizes) if normed else mlp(sizes)

    def forward(self, action: Tensor, days: Tensor) -> Tensor:
        """[B, embedding] from action [B, C] and days [B]."""
        return self.layers(action)

    def penalty(self) -> Tensor:
        """Nothing is held back here: zero."""
        return next(self.layers.parameters()).new_zeros(())


class EmbeddedAction(nn.Module):
    """Sum of the changed codes' vectors, joined with bounded features of log1p(days), through an MLP.

    Codes are of any chapter and level of ICD-10, mixed as wanted: the vectors of I48.0 and I48.91 are both that of I48,
    which is made of its chapter, its block and a part of its own, plus what is theirs alone.

    Linear in the action up to the MLP, so fractions between -1 and 1 interpolate and have a gradient. Elapsed time
    enters as sigmoids of log1p(days) about eight scales: smooth, and at most 1 however long it is.

    Args:
        codes: [C], the columns of an action, in the spelling that callers have.
        embedding: size of the vectors and of the result.
        hidden: width of the MLP.

    Raises:
        UnknownCodeError: a code that ICD-10 does not have.
        ValueError: one code in two spellings.
    """

    in_block: Tensor  # int64 [C] whose block a code is of
    in_chapter: Tensor  # int64 [C]
    below: Tensor  # int64 [K, C] rows of `own` of the levels between block and code; -1 where a code has fewer than K
    centres: Tensor  # [8] log1p of SCALES_DAYS

    def __init__(self, codes: Sequence[str], embedding: int, hidden: int):
        super().__init__()
        self.codes = tuple(codes)
        paths = [icd10.path(code) for code in self.codes]
        _check_distinct(self.codes, paths)
        self.chapters = tuple(sorted({path[0] for path in paths}))
        self.blocks = tuple(sorted({path[1] for path in paths}))
        own = [path[-1] for path in paths]
        between = {level for path in paths for level in path[2:-1]}
        self.levels = (*own, *sorted(between - set(own)))  # what `own` has vectors of: the codes, then what is above
        self.own = nn.Parameter(torch.zeros(2, len(self.levels), embedding))
        self.block = nn.Parameter(_start(self.blocks, embedding))
        self.chapter = nn.Parameter(_start(self.chapters, embedding))
        self.layers = mlp((embedding + len(SCALES_DAYS), hidden, embedding))
        in_block = torch.tensor([self.blocks.index(path[1]) for path in paths])
        in_chapter = torch.tensor([self.chapters.index(path[0]) for path in paths])
        row = {level: i for i, level in enumerate(self.levels)}
        below = torch.full((max(len(path) for path in paths) - 3, len(paths)), -1)
        for i, path in enumerate(paths):
            for k, level in enumerate(path[2:-1]):
                below[k, i] = row[level]
        self.register_buffer("in_block", in_block, persistent=False)  # follow from the codes: a checkpoint need not say
        self.register_buffer("in_chapter", in_chapter, persistent=False)
        self.register_buffer("below", below, persistent=False)
        centres = torch.tensor([math.log1p(scale) for scale in SCALES_DAYS])
        self.register_buffer("centres", centres, persistent=False)

    def vectors(self) -> Tensor:
        """[2, C, embedding]: of every code's onset and of its resolution."""
        total = self.own[:, : len(self.codes)] + self.block[:, self.in_block] + self.chapter[:, self.in_chapter]
        for rows in self.below:
            total = total + self.own[:, rows.clamp(min=0)] * (rows >= 0).unsqueeze(-1)
        return total

    def forward(self, action: Tensor, days: Tensor) -> Tensor:
        """[B, embedding] from action [B, C] and days [B]; negative days count as none."""
        vectors = self.vectors()
        moved = action.clamp(min=0.0) @ vectors[ONSET] + (-action).clamp(min=0.0) @ vectors[RESOLUTION]
        elapsed = torch.sigmoid(2.0 * (torch.log1p(days.clamp(min=0.0)).unsqueeze(-1) - self.centres))
        return self.layers(torch.cat([moved, elapsed.to(moved.dtype)], dim=-1))

    def penalty(self) -> Tensor:
        """Mean squared length of the codes' own vectors and of those of the levels between them and their blocks."""
        return self.own.square().sum() / len(self.levels)

    @torch.no_grad()
    def nearest_codes(self, code: str, count: int = 5) -> list[tuple[str, float]]:
        """Known codes whose onset and resolution vectors lie closest to `code`'s, with the cosine; not `code` itself.

        `code` need not be known: it then stands at what is known of the levels above it. Where the lowest of these is
        a known code, `code` is read as that one.

        Raises:
            UnknownCodeError: a code that ICD-10 does not have.
            ValueError: a code of whose chapter nothing is known.
        """
        chapter, block, *below = icd10.path(code)
        if chapter not in self.chapters:
            known_chapters = ", ".join(self.chapters)
            raise ValueError(f"nothing is known of {code!r}, of chapter {chapter}; give a code of {known_chapters}")
        below = [level for level in below if level in self.levels]
        wanted = sum((self.own[:, self.levels.index(level)] for level in below), torch.zeros_like(self.own[:, 0]))
        if block in self.blocks:
            wanted = wanted + self.block[:, self.blocks.index(block)]
        wanted = wanted + self.chapter[:, self.chapters.index(chapter)]
        known = self.vectors().transpose(0, 1).flatten(1)
        cosine = torch.cosine_similarity(known, wanted.flatten().unsqueeze(0), dim=-1)
        order = cosine.argsort(descending=True, stable=True).tolist()
        others = [i for i in order if self.levels[i] not in below[-1:]]
        return [(self.codes[i], float(cosine[i])) for i in others[:count]]

    @torch.no_grad()
    def with_codes(self, codes: Sequence[str]) -> EmbeddedAction:
        """A projector for other codes that keeps what this one knows.

        Known codes, categories, blocks and chapters keep their vectors; a new one equals the level above it.

        Raises:
            UnknownCodeError: a code that ICD-10 does not have.
            ValueError: one code in two spellings.
        """
        hidden = next(self.layers.parameters()).shape[0]
        other = EmbeddedAction(codes, self.own.shape[-1], hidden).to(self.own)
        other.layers.load_state_dict(self.layers.state_dict())
        pairs = (
            (self.own, self.levels, other.own, other.levels),
            (self.block, self.blocks, other.block, other.blocks),
            (self.chapter, self.chapters, other.chapter, other.chapters),
        )
        for mine, names, theirs, wanted in pairs:
            at = {name: i for i, name in enumerate(names)}
            both = [(i, at[name]) for i, name in enumerate(wanted) if name in at]
            theirs.zero_()
            theirs[:, [i for i, _ in both]] = mine[:, [j for _, j in both]]
        return other.train(self.training)


def _check_distinct(codes: Sequence[str], paths: Sequence[tuple[str, ...]]) -> None:
    first: dict[str, str] = {}
    for code, path in zip(codes, paths, strict=True):
        if path[-1] in first:
            raise ValueError(f"codes {first[path[-1]]!r} and {code!r} are both {path[-1]}; each may be given once")
        first[path[-1]] = code


def _start(names: Sequence[str], size: int) -> Tensor:
    """First vectors [2, len(names), size]: small, and a function of the name alone."""
    key = torch.cat([keys.from_seed(zlib.crc32(name.encode())) for name in names])
    return _SPREAD * keys.normal(key, 0, "action vector", (2, size)).transpose(0, 1).contiguous()


def action_projector(config: JEPAConfig) -> BinaryAction | EmbeddedAction:
    """The projector that the config names."""
    if config.action == "embedded":
        return EmbeddedAction(config.codes, config.embedding, config.action_hidden)
    return BinaryAction(config.codes, config.embedding, config.action_hidden, config.layers == "authors")
