"""Language models: a table of intervals and an order in, a table of intervals out.

Any backend of `world_models.ehr_world.causal_lm.prompt` answers: a server (`server(LLMClient(...))`), a GGUF file
(`gguf()`, SmolLM2-135M by default), or a model of transformers on disk (`transformers_folder`). The answer is read
strictly: one line a measure, `name: number`, every measure once, each within the chart's bounds, else it counts as not
answered and the pre-dose value stands in. What is unanswered is counted and told beside every figure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.ecg_drug.rivals.frame import Given, Predicted, chart_of
from world_models.ecg_wm.pairs import own_beat
from world_models.ehr_world.causal_lm.prompt import STYLES, Backend
from world_models.oracles.ecg_drug.dynamics import ENDPOINTS
from world_models.oracles.ecg_drug.scales import to_scale
from world_models.quantities.drugs import ANTIARRHYTHMICS
from world_models.quantities.ecg_drug import MEASURES

__all__ = ["LanguageRival", "ask", "parse_table", "transformers_folder"]

SYSTEM = (
    "You are a clinical pharmacologist. You foretell how a 12-lead ECG changes after a dose of a drug. Answer with the "
    "table alone: the same lines in the same order, each 'name: number', with the values expected at the time asked."
)
_BOUNDS = {q.name: (q.low, q.high) for q in MEASURES}
_DECIMALS = {"t_asymmetry": 3, "t_flatness": 3}
_LINE = re.compile(r"^\s*([a-z_0-9]+)\s*[:=]\s*(-?[0-9]+(?:\.[0-9]+)?)\s*[a-zA-Z]*\s*$")


def _table(values: Sequence[float]) -> str:
    return "\n".join(f"{n}: {v:.{_DECIMALS.get(n, 0)}f}" for n, v in zip(ENDPOINTS, values, strict=True))


def ask(told: Given, row: int, style: str = "chat") -> list[dict[str, str]] | str:
    """What asks for one patient's ECG: messages, or with style "continue" a text that breaks off within the table."""
    chart, who = told.pre_chart, told.covariates
    values = [float(torch.nan_to_num(chart[n][row], nan=0.0)) for n in ENDPOINTS]
    drug, hours = int(told.drug[row]), float(told.hours[row])
    order = "no drug" if drug == 0 else f"{float(told.dose_mg[row]):.3g} mg {ANTIARRHYTHMICS[drug - 1].salt} by mouth"
    sex = "woman" if float(who["sex_female"][row]) > 0.5 else "man"
    text = (
        f"A {sex} of {float(who['age_years'][row]):.0f} years, {float(who['weight_kg'][row]):.0f} kg, creatinine "
        f"clearance {float(who['creatinine_clearance_ml_min'][row]):.0f} mL/min, potassium "
        f"{float(who['potassium_mmol_l'][row]):.1f} mmol/L. The ECG before the dose (ms, bpm, uV):\n{_table(values)}\n"
        f"Given now: {order}. The same table {hours:g} hours later:"
    )
    if style == "continue":
        return f"{text}\n{ENDPOINTS[0]}:"
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]


def parse_table(text: str) -> list[float] | None:
    """The ten measures of an answer, in the order of ENDPOINTS; None unless each stands there once and can be."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        match = _LINE.match(line)
        if match is None or match.group(1) not in ENDPOINTS:
            continue
        name, value = match.group(1), float(match.group(2))
        low, high = _BOUNDS[name]
        if name in found or not low <= value <= high:
            return None
        found[name] = value
    return [found[n] for n in ENDPOINTS] if len(found) == len(ENDPOINTS) else None


class LanguageRival:
    """A language model as a `Rival`.

    Args:
        backend: messages in, answers out.
        name: as tables name it.
        style: "chat" asks by messages; "continue" has the table gone on with, for models that were taught no chat: what
            comes after its last line is cut off.

    Raises:
        ValueError: another style.
    """

    def __init__(self, backend: Backend, name: str, style: str = "chat"):
        if style not in STYLES:
            raise ValueError(f"style={style!r}; there are: {', '.join(STYLES)}")
        self.backend, self.name, self.style = backend, name, style
        self.asked = self.unanswered = self.failed = 0

    def sample(self, told: Given, key: Tensor, samples: int) -> Predicted:
        """See `frame.Rival.sample`. One answer a patient, whatever `samples`: servers differ in how they sample."""
        before = torch.stack([told.pre_chart[n] for n in ENDPOINTS], -1)
        values = before.clone()
        answers = self.backend([ask(told, row, self.style) for row in range(len(key))])
        for row, answer in enumerate(answers):
            self.asked += 1
            self.failed += isinstance(answer, Exception)
            read = None if isinstance(answer, Exception) else self._read(answer)
            self.unanswered += read is None
            if read is not None:
                values[row] = torch.tensor(read)
        chart = chart_of(to_scale(values))
        answered = (values != before).any(-1).view(-1, 1, 1)
        beat = torch.where(answered, own_beat(chart, told.pre_beat, (told.pre_chart, told.pre_beat)), told.pre_beat)
        return Predicted(beat.expand(samples, -1, -1, -1), {n: v.expand(samples, -1) for n, v in chart.items()})

    def _read(self, answer: str) -> list[float] | None:
        if self.style == "continue":
            answer = "\n".join(f"{ENDPOINTS[0]}:{answer}".splitlines()[: len(ENDPOINTS)])
        return parse_table(answer)


def transformers_folder(folder: str | Path, max_tokens: int = 160, batch: int = 8) -> Backend:
    """Ask a causal model of transformers that lies on disk (nothing is downloaded), greedily.

    Raises:
        ValueError: the folder holds no model that can be loaded.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = Path(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(path, local_files_only=True, use_safetensors=True).eval()
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} holds no causal model of transformers ({str(error)[:200]}); give its folder"
        ) from None
    return _generating(model, tokenizer, max_tokens, batch)


def _generating(model: Any, tokenizer: Any, max_tokens: int, batch: int) -> Callable[[Sequence[Any]], list[Any]]:
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token

    def text_of(messages: Any) -> str:
        if isinstance(messages, str):
            return messages
        if getattr(tokenizer, "chat_template", None):
            return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return "\n\n".join(m["content"] for m in messages) + "\n"

    @torch.no_grad()
    def answer(prompts: Sequence[Any]) -> list[Any]:
        found: list[Any] = []
        for start in range(0, len(prompts), batch):
            texts = [text_of(p) for p in prompts[start : start + batch]]
            ids = tokenizer(texts, return_tensors="pt", padding=True)
            said = model.generate(
                **ids, max_new_tokens=max_tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id
            )
            found += tokenizer.batch_decode(said[:, ids["input_ids"].shape[1] :], skip_special_tokens=True)
        return found

    return answer
