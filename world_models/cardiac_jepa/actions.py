"""Action projectors: from what changed in the diagnoses, and the time it took, to the embedding that moves the latent.

`BinaryAction` is the paper's: an MLP on a in {-1, 0, 1}^C, so that an onset and its resolution are opposite inputs and
a day equals a year. `EmbeddedAction` is the way past it that the paper names and does not take: a learned vector for
each onset and each resolution, made of a part of the code's own, one of its block in ICD-10 and one of its chapter,
joined with the elapsed time. A code never seen in training moves the latent as its block does.
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

    Linear in the action up to the MLP, so fractions between -1 and 1 interpolate and have a gradient. Elapsed time
    enters as sigmoids of log1p(days) about eight scales: smooth, and at most 1 however long it is.

    Raises:
        UnknownCodeError: a code that chapter IX of ICD-10 does not have.
    """

    in_block: Tensor  # int64 [C] whose block a code is of
    in_chapter: Tensor  # int64 [C]
    centres: Tensor  # [8] log1p of SCALES_DAYS

    def __init__(self, codes: Sequence[str], embedding: int, hidden: int):
        super().__init__()
        self.codes = tuple(codes)
        paths = [icd10.path(code) for code in self.codes]
        self.chapters = tuple(sorted({chapter for chapter, _, _ in paths}))
        self.blocks = tuple(sorted({block for _, block, _ in paths}))
        self.own = nn.Parameter(torch.zeros(2, len(self.codes), embedding))
        self.block = nn.Parameter(_start(self.blocks, embedding))
        self.chapter = nn.Parameter(_start(self.chapters, embedding))
        self.layers = mlp((embedding + len(SCALES_DAYS), hidden, embedding))
        in_block = torch.tensor([self.blocks.index(block) for _, block, _ in paths])
        in_chapter = torch.tensor([self.chapters.index(chapter) for chapter, _, _ in paths])
        self.register_buffer("in_block", in_block, persistent=False)  # follow from the codes: a checkpoint need not say
        self.register_buffer("in_chapter", in_chapter, persistent=False)
        centres = torch.tensor([math.log1p(scale) for scale in SCALES_DAYS])
        self.register_buffer("centres", centres, persistent=False)

    def vectors(self) -> Tensor:
        """[2, C, embedding]: of every code's onset and of its resolution."""
        return self.own + self.block[:, self.in_block] + self.chapter[:, self.in_chapter]

    def forward(self, action: Tensor, days: Tensor) -> Tensor:
        """[B, embedding] from action [B, C] and days [B]; negative days count as none."""
        vectors = self.vectors()
        moved = action.clamp(min=0.0) @ vectors[ONSET] + (-action).clamp(min=0.0) @ vectors[RESOLUTION]
        elapsed = torch.sigmoid(2.0 * (torch.log1p(days.clamp(min=0.0)).unsqueeze(-1) - self.centres))
        return self.layers(torch.cat([moved, elapsed.to(moved.dtype)], dim=-1))

    def penalty(self) -> Tensor:
        """Mean over codes of the squared length of their own vectors."""
        return self.own.square().sum() / len(self.codes)

    @torch.no_grad()
    def nearest_codes(self, code: str, count: int = 5) -> list[tuple[str, float]]:
        """Known codes whose onset and resolution vectors lie closest to `code`'s, with the cosine; not `code` itself.

        `code` need not be known: it then stands at what is known of its block and chapter.

        Raises:
            UnknownCodeError: a code that chapter IX does not have.
        """
        chapter, block, category = icd10.path(code)
        known = self.vectors().transpose(0, 1).flatten(1)
        if category in self.codes:
            wanted = known[self.codes.index(category)]
        else:
            wanted = torch.zeros_like(self.own[:, 0])
            if block in self.blocks:
                wanted = wanted + self.block[:, self.blocks.index(block)]
            if chapter in self.chapters:
                wanted = wanted + self.chapter[:, self.chapters.index(chapter)]
            wanted = wanted.flatten()
        cosine = torch.cosine_similarity(known, wanted.unsqueeze(0), dim=-1)
        order = [i for i in cosine.argsort(descending=True, stable=True).tolist() if self.codes[i] != category]
        return [(self.codes[i], float(cosine[i])) for i in order[:count]]

    @torch.no_grad()
    def with_codes(self, codes: Sequence[str]) -> EmbeddedAction:
        """A projector for other codes that keeps what this one knows.

        Known codes keep their own vectors, known blocks and chapters theirs; a new code equals its block, a new block
        its chapter.
        """
        hidden = next(self.layers.parameters()).shape[0]
        other = EmbeddedAction(codes, self.own.shape[-1], hidden).to(self.own)
        other.layers.load_state_dict(self.layers.state_dict())
        pairs = (
            (self.own, self.codes, other.own, other.codes),
            (self.block, self.blocks, other.block, other.blocks),
            (self.chapter, self.chapters, other.chapter, other.chapters),
        )
        for mine, names, theirs, wanted in pairs:
            theirs.zero_()
            for i, name in enumerate(wanted):
                if name in names:
                    theirs[:, i] = mine[:, names.index(name)]
        return other.train(self.training)


def _start(names: Sequence[str], size: int) -> Tensor:
    """First vectors [2, len(names), size]: small, and a function of the name alone."""
    key = torch.cat([keys.from_seed(zlib.crc32(name.encode())) for name in names])
    return _SPREAD * keys.normal(key, 0, "action vector", (2, size)).transpose(0, 1).contiguous()


def action_projector(config: JEPAConfig) -> BinaryAction | EmbeddedAction:
    """The projector that the config names."""
    if config.action == "embedded":
        return EmbeddedAction(config.codes, config.embedding, config.action_hidden)
    return BinaryAction(config.codes, config.embedding, config.action_hidden, config.layers == "authors")
