"""Real single ECGs in pre-training: where nobody recorded a pair, two stretches of one record are one without change.

The transition is none and the time zero, so the model learns of them what stays, and SIGReg spreads latents over real
hearts as well as simulated ones. No label of them is learned from. PTB-XL's folds 1 to 6 and LUDB's odd records alone:
the others are for choosing and judging.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from world_models import keys
from world_models.cardiac_jepa.pretrain import Batch, PairBatches, PairOrder
from world_models.data.ecg import ptbxl
from world_models.data.ecg.labelled import read_ludb, read_ptbxl

__all__ = ["MixedPairs", "SingleECGs", "told_sources", "tuning_ecgs"]

PTBXL = "PTB-XL 1.0.3 (folds 1 to 6; Wagner 2020, doi 10.1038/s41597-020-0495-6, CC BY 4.0)"
LUDB = "LUDB 1.0.1 (odd records; Kalyakulina 2020, doi 10.1109/ACCESS.2020.3029211, ODC-By)"
ATTRIBUTION = """Besides, of {count} real ECGs without their labels, two stretches of a record as a pair without change,
a share of {share:g} of every batch: {sources}."""


def tuning_ecgs(ptbxl_folder: str | Path | None, ludb_folder: str | Path | None) -> Tensor:
    """ECGs [N, 12, 1000] float16 mV at 100 Hz of PTB-XL's folds 1 to 6 and LUDB's odd records, of the folders given.

    Raises:
        RecordError: a folder does not hold what it should.
        ValueError: neither is given.
    """
    parts = []
    if ptbxl_folder is not None:
        parts.append(read_ptbxl(ptbxl_folder, ptbxl.SPLITS["train"]).ecg)
    if ludb_folder is not None:
        found = read_ludb(ludb_folder)
        parts.append(found.ecg[torch.tensor([int(name) % 2 == 1 for name in found.record])])
    if not parts:
        raise ValueError("no folder of real ECGs; give PTB-XL's, LUDB's or both")
    return torch.cat(parts).half()


def told_sources(count: int, share: float, with_ptbxl: bool, with_ludb: bool) -> str:
    """The model card's paragraph on them, with its citations."""
    sources = "; ".join(text for text, given in ((PTBXL, with_ptbxl), (LUDB, with_ludb)) if given)
    return ATTRIBUTION.format(count=count, share=share, sources=sources)


class SingleECGs:
    """Batches of two crops each of single ECGs, a function of the step alone.

    Args:
        ecg: [N, 12, T] mV at 100 Hz.
        codes: how many labels an action has.
        crop: samples of a crop.
        seed: of order and crops.

    Raises:
        ValueError: no ECGs, or a crop longer than they are.
    """

    def __init__(self, ecg: Tensor, codes: int, crop: int = 250, seed: int = 0):
        if ecg.ndim != 3 or not len(ecg) or not 0 < crop <= ecg.shape[-1]:
            raise ValueError(
                f"a crop of {crop} samples of ECGs {list(ecg.shape)}; give [N, 12, T] with T at least that"
            )
        self.windows = ecg.unfold(2, crop, 1)
        self.codes = codes
        self.key = keys.fold(keys.from_seed(seed), "single ECGs")
        self.order = PairOrder(len(ecg), self.key)

    def __len__(self) -> int:
        return self.order.count

    def batch(self, step: int, size: int = 256, rank: int = 0, world: int = 1) -> Batch:
        """Two crops [B, 12, crop] float32 mV of each record, no action [B, C], no days [B].

        Raises:
            ValueError: a size that `world` does not divide.
        """
        place, row = self.order.batch(step, size, rank, world)
        spots = self.windows.shape[2]
        start = (keys.uniform(self.key.expand(len(place)), place, "crop", (2,)) * spots).long().clamp_max(spots - 1)
        a, b = (torch.nan_to_num(self.windows[row, :, start[:, i]].float(), nan=0.0) for i in (0, 1))
        return a, b, torch.zeros(len(row), self.codes), torch.zeros(len(row))


class MixedPairs:
    """Pairs of which a share comes from another source, in every batch.

    Args:
        pairs: the others.
        singles: of which the share comes.
        share: above 0 and below 1.

    Raises:
        ValueError: another share, or sources with other numbers of codes.
    """

    def __init__(self, pairs: PairBatches, singles: PairBatches, share: float):
        if not 0 < share < 1 or pairs.codes != singles.codes:
            raise ValueError(
                f"a share of {share} of sources with {pairs.codes} and {singles.codes} codes; give one above 0 and "
                "below 1, and the same codes"
            )
        self.pairs, self.singles, self.share = pairs, singles, share
        self.codes = pairs.codes

    def __len__(self) -> int:
        return len(self.pairs) + len(self.singles)

    def batch(self, step: int, size: int = 256, rank: int = 0, world: int = 1) -> Batch:
        """As of either source: first the pairs, then the share of singles, at least one of each a process."""
        some = min(max(1, round(self.share * size / world)), size // world - 1) * world
        parts = self.pairs.batch(step, size - some, rank, world), self.singles.batch(step, some, rank, world)
        return tuple(torch.cat([a, b.to(a.device)]) for a, b in zip(*parts, strict=True))  # type: ignore[return-value]
