"""Whether a language model can be read step by step in batches: tried out when it is loaded, on a few tokens.

A signature does not tell. Some models take no places (`position_ids`) and yet number a row without its filling, as
Bloom does; others count the filling in (MPT) or look ahead (BERT). So the same tokens are read in one piece, in two,
and in two beside a longer row with filling between: the three must give the same logits but for rounding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from world_models.ehr_world.causal_lm.cache import EMPTY, LMState

if TYPE_CHECKING:
    from world_models.ehr_world.causal_lm.model import CausalLM

__all__ = ["check_attention", "check_reading", "library_errors", "most_positions", "reading_errors"]

TOKENS = 4  # of each of two pieces
FILLING = 48  # places between them: what a model that counts them gets wrong grows with their number
ROUNDINGS = 16  # of the model's precision, relative to the spread of its logits; float32 is allowed LEAST
LEAST = 1e-3


@contextlib.contextmanager
def library_errors(what: str) -> Iterator[None]:
    """Whatever transformers raises on a config or a file that it cannot use, as a ValueError."""
    try:
        yield
    except ImportError:
        raise  # a library that is lacking says which
    except Exception as error:  # a hundred architectures, each with its own
        raise ValueError(f"{what} ({type(error).__name__}: {error})") from error


def check_attention(config: Any) -> None:
    """Raises ValueError: layers that see a part of what came before, which too few tokens would not show."""
    text = config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or getattr(text, "attention_layers", None) or ["full_attention"])
    window = getattr(text, "sliding_window", None)
    if kinds - {"full_attention", "global"} or window is not None:
        raise ValueError(
            f"the model attends by {', '.join(sorted(kinds))} (sliding_window={window}); a cache that survives between "
            "steps needs full attention"
        )


def most_positions(config: Any) -> int:
    """Tokens up to which a row's places mean the same whatever else is in its batch."""
    text = config.get_text_config()
    most = getattr(text, "max_position_embeddings", None)
    most = most if isinstance(most, int) and most > 0 else 1 << 60
    rope = getattr(text, "rope_parameters", None) or {}
    # LongRoPE turns all rows, but not the keys of the cache, once the longest row passes the length it was made for
    if rope.get("rope_type") == "longrope":
        most = min(most, rope.get("original_max_position_embeddings") or most)
    return most


def check_reading(lm: CausalLM) -> None:
    """Raises ValueError: the model's kind is one that a cache of filled rows cannot serve; the message says why."""
    name = type(lm.model).__name__
    remedy = "take a decoder with full attention that takes position_ids, such as Qwen3, Llama or SmolLM3"
    with library_errors(f"{name} cannot be fed piece by piece; {remedy}"):
        pieces, filled = reading_errors(lm)
    most = max(LEAST, ROUNDINGS * torch.finfo(lm.model.dtype).eps)
    for error, what in (
        (pieces, "read in two pieces than in one: it sees later tokens, or keeps no cache of all before"),
        (filled, "in a batch with a longer stay than alone: it does not honour position_ids and the attention mask"),
    ):
        if not error <= most:
            raise ValueError(
                f"{name} gives other logits to the same tokens {what} (off by {error:.2g} of their spread; "
                f"{most:.2g} is rounding); {remedy}"
            )


@torch.no_grad()
def reading_errors(lm: CausalLM) -> tuple[float, float]:
    """Largest error of a logit, in standard deviations of the logits: in two pieces; in two with filling between."""
    training = lm.model.training
    lm.model.eval()
    try:
        count = 2 * TOKENS
        filling = max(0, min(FILLING, lm.limit - count))
        row = [(7 * i + 3) % lm.codec.size for i in range(count)]
        long = [(5 * i + 1) % lm.codec.size for i in range(TOKENS + filling)]
        whole = lm.feed(_pending(lm, [row]))[1][0].float()
        two = _fed(lm, [row[:TOKENS]], [row[TOKENS:]])[0]
        # the second row is longer first, so that the first one has its filling in the middle, as a stay in a batch has
        beside = _fed(lm, [row[:TOKENS], long], [row[TOKENS:], row[:1]])[0]
        spread = whole.std()
        return float((two - whole).abs().max() / spread), float((beside - whole).abs().max() / spread)
    finally:
        lm.model.train(training)


def _fed(lm: CausalLM, first: list[list[int]], second: list[list[int]]) -> Tensor:
    state, _ = lm.feed(_pending(lm, first))
    return lm.feed(state._replace(pending=_pending(lm, second).pending))[1].float()


def _pending(lm: CausalLM, pieces: list[list[int]]) -> LMState:
    longest = max(len(p) for p in pieces)
    pending = torch.tensor([[*p, *[EMPTY] * (longest - len(p))] for p in pieces], device=lm.device)
    zeros = torch.zeros(len(pieces), dtype=torch.int64, device=lm.device)
    return LMState(zeros, zeros - 1, zeros, pending[:, :0], pending, ())
