"""The clinical query: the order and the patient as a sentence, and the sentence as a vector.

    texts = query_texts(chart, order_mg)       # "72-year-old woman, 64 kg, QTcF 412 ms; dofetilide 250 ug now"
    q = WordQuery()(texts)                     # [B, Q], learned along with what uses it
    q = TextModelQuery(folder)(texts)          # [B, Q], any transformers text model on disk, frozen

The texts are made from the chart, so nothing is parsed. `WordQuery` has a small vocabulary of its own; a number goes in
as the word <number> with its value beside it, since figures spelled out tell a small model little. It takes free text
as well: what it does not know is <unknown>.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from world_models.ecg_wm.features import local_model, pooled_states
from world_models.protocol import Chart
from world_models.quantities.ecg_drug import DRUGS

__all__ = ["VOCABULARY", "TextModelQuery", "WordQuery", "query_texts", "tokens"]

# name in the chart, words before the number, unit, decimals; in this order, those that are known
SAID = (
    ("weight_kg", "", "kg", 0),
    ("creatinine_clearance_ml_min", "creatinine clearance", "mL/min", 0),
    ("potassium_mmol_l", "potassium", "mmol/L", 1),
    ("magnesium_mmol_l", "magnesium", "mmol/L", 2),
    ("systolic_bp_mmhg", "blood pressure", "mmHg", 0),
    ("heart_rate_bpm", "rate", "bpm", 0),
    ("pr_ms", "PR", "ms", 0),
    ("qrs_ms", "QRS", "ms", 0),
    ("qtcf_ms", "QTcF", "ms", 0),
)
_WORDS = "<pad> <unknown> <number> year old woman man person atrial fibrillation sinus rhythm now nothing and mg ug , ;"
VOCABULARY: tuple[str, ...] = (
    *_WORDS.split(),
    *DRUGS,
    *dict.fromkeys(w for _, words, unit, _ in SAID for w in re.findall(r"[a-z]+", f"{words} {unit}".lower())),
)
_INDEX = {word: i for i, word in enumerate(VOCABULARY)}
_TOKEN = re.compile(r"[a-z]+|\d+(?:\.\d+)?|[,;]")
LONGEST = 96  # tokens
# Without one of these transformers makes up a tokeniser that knows no word.
_TOKENISERS = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)


def query_texts(chart: Chart, order_mg: Tensor) -> list[str]:
    """One sentence for each patient of a chart ([B] each) and order [B, D] in mg; what is unknown is not said."""
    batch = len(order_mg)

    def known(name: str, row: int) -> float | None:
        value = float(chart[name][row]) if name in chart else math.nan
        return value if math.isfinite(value) else None

    return [f"{_patient(known, row)}; {_order(order_mg[row].tolist())}" for row in range(batch)]


def _patient(known: Callable[[str, int], float | None], row: int) -> str:
    age, sex = known("age_years", row), known("sex_female", row)
    who = "person" if sex is None else "woman" if sex > 0.5 else "man"
    parts = [who if age is None else f"{age:.0f}-year-old {who}"]
    for name, words, unit, decimals in SAID:
        value = known(name, row)
        if value is not None:
            parts.append(f"{words} {value:.{decimals}f} {unit}".strip())
    fibrillating = known("atrial_fibrillation", row)
    if fibrillating is not None:
        parts.append("atrial fibrillation" if fibrillating > 0.5 else "sinus rhythm")
    return ", ".join(parts)


def _order(dose_mg: Sequence[float]) -> str:
    given = [
        f"{drug} {dose * 1000:.0f} ug" if dose < 1 else f"{drug} {dose:.0f} mg"
        for drug, dose in zip(DRUGS, dose_mg, strict=True)
        if dose > 0
    ]
    return (" and ".join(given) or "nothing") + " now"


def tokens(texts: Sequence[str], device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Word numbers [B, L] (0 is padding) and values [B, L]: log1p of a number, 0 elsewhere.

    Raises:
        ValueError: no text, or one of over LONGEST tokens.
    """
    found = [_TOKEN.findall(text.lower()) for text in texts]
    longest = max((len(words) for words in found), default=0)
    if not longest or longest > LONGEST:
        raise ValueError(f"a query has {longest} tokens; give 1 to {LONGEST}")
    word = torch.zeros(len(found), longest, dtype=torch.int64)
    value = torch.zeros(len(found), longest)
    for row, words in enumerate(found):
        for place, text in enumerate(words):
            number = text[0].isdigit()
            word[row, place] = _INDEX["<number>"] if number else _INDEX.get(text, _INDEX["<unknown>"])
            value[row, place] = math.log1p(float(text)) if number else 0.0
    return word.to(device), value.to(device)


class WordQuery(nn.Module):
    """Texts -> [B, size]: embedded words with their values through a GRU; its state after the last word."""

    def __init__(self, size: int = 32):
        super().__init__()
        self.size = size
        self.word = nn.Embedding(len(VOCABULARY), size, padding_idx=0)
        self.value = nn.Linear(2, size)
        self.gru = nn.GRU(size, size, batch_first=True)

    def forward(self, texts: Sequence[str]) -> Tensor:
        """[B, size]. Raises as `tokens`."""
        word, value = tokens(texts, self.value.weight.device)
        return self.embed(word, value)

    def embed(self, word: Tensor, value: Tensor) -> Tensor:
        """[B, size] of `tokens`."""
        number = (word == _INDEX["<number>"]).to(value.dtype)
        seen = self.word(word) + self.value(torch.stack([value * number, number], -1)) * number.unsqueeze(-1)
        states, _ = self.gru(seen)
        last = (word > 0).sum(-1).clamp_min(1) - 1
        return states.gather(1, last.view(-1, 1, 1).expand(-1, 1, self.size)).squeeze(1)


class TextModelQuery:
    """Texts -> [B, Q] by a frozen transformers text model of a folder: the mean of its last states.

    Raises:
        FileNotFoundError: no such folder, or no config.json in it.
        ValueError: a folder that holds no text model or no tokeniser.
    """

    def __init__(self, folder: str | Path, device: torch.device | str = "cpu"):
        from transformers import AutoTokenizer

        folder = Path(folder)
        self.model = local_model(folder).to(device)
        if self.model.main_input_name != "input_ids":
            raise ValueError(f"{folder} holds a model that is fed with {self.model.main_input_name!r}, not with text")
        if not any((folder / name).is_file() for name in _TOKENISERS):
            raise ValueError(f"{folder} has no tokeniser (none of {', '.join(_TOKENISERS)}); save it beside the model")
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except Exception as error:  # transformers raises many kinds on a stranger's files
            raise ValueError(
                f"{folder} has no tokeniser that can be read ({error}); save it beside the model"
            ) from error
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token or self.tokenizer.unk_token
        self.device = torch.device(device)

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        """[B, Q], no gradient.

        Raises:
            ValueError: no text.
        """
        if not texts:
            raise ValueError("no query was given; give one text a patient")
        given = self.tokenizer(list(texts), return_tensors="pt", padding=True, truncation=True).to(self.device)
        inputs = {name: given[name] for name in ("input_ids", "attention_mask")}
        network = getattr(self.model, "encoder", self.model) if self.model.config.is_encoder_decoder else self.model
        states = network(**inputs).last_hidden_state
        seen = given["attention_mask"].unsqueeze(-1).to(states.dtype)
        return pooled_states((states * seen).sum(1) / seen.sum(1).clamp_min(1), "mean")
