"""The tokenisation that was saved beside a language model of stays, whichever of the two it is."""

from __future__ import annotations

import json
from pathlib import Path

from world_models.ehr_world.causal_lm.codec import CODEC, NarrativeCodec, TextCodec
from world_models.ehr_world.causal_lm.tokens import QuantileCodec

__all__ = ["load_codec"]


def load_codec(folder: str | Path) -> NarrativeCodec:
    """The codec that was saved beside a model; a plain checkpoint without one is read as text through its tokenizer.

    Raises:
        FileNotFoundError: no folder, or neither a codec nor a tokenizer in it.
        ValueError: the codec's file is damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} is no folder; give one that holds a model and its tokenizer, nothing is downloaded"
        )
    settings: dict = {"codec": "text"}
    if (folder / CODEC).is_file():
        try:
            settings = json.loads((folder / CODEC).read_text(encoding="utf-8"))
            name = settings["codec"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{folder / CODEC} is damaged ({error}); restore it or train again") from None
        if name == "quantile":
            return QuantileCodec.from_dict(settings)
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # each of a hundred tokenizers has its own way to fail
        raise FileNotFoundError(f"{folder} holds no tokenizer that can be read ({error})") from None
    return TextCodec(tokenizer, settings.get("numbers_only", False), settings.get("longest", 24))
