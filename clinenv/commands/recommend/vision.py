"""The models that may be asked: a vision-language model on this disk, or one behind an OpenAI-compatible address.

On this disk: any folder that transformers' AutoModelForImageTextToText and AutoProcessor read, safetensors only, no
code of the folder's own. By default it writes within a grammar, the form of an answer over the candidates that the
label allows, so that its preference among them is what is read; `--vlm-free` lets it write as it likes, as one behind
an address always does. Either way `advice.checked` decides what stands.
"""

from __future__ import annotations

import argparse
import base64
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clinenv.commands.errors import UsageError
from clinenv.commands.recommend.advice import Advice, checked, entry_text, instructions
from clinenv.commands.recommend.candidates import Candidate
from clinenv.commands.recommend.evaluate import Evaluation
from clinenv.commands.recommend.grammar import RankingGrammar
from clinenv.commands.simulate.inputs import Patient
from clinenv.ecg.measurement import RATE_HZ, Measurement
from clinenv.rendering.ecg_paper import paper_image

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Adviser", "adviser"]

Adviser = Callable[[Measurement, Patient, Sequence[Evaluation], Mapping[str, float]], Advice]
Ask = Callable[["Image", str, Sequence[Candidate]], str]  # picture, instructions, candidates -> the answer
TITLE = "Recorded, before any dose"
URL_TIMEOUT_S = 300.0


def adviser(given: argparse.Namespace) -> Adviser:
    """The function that asks; the model is loaded, or the address checked, here and now.

    Raises:
        UsageError: a folder that is no such model, or an address that is none.
    """
    ask: Ask
    if given.vlm is not None:
        ask, name = _local(Path(given.vlm), given.vlm_tokens, given.vlm_free), Path(given.vlm).resolve().name
    else:
        ask, name = _served(given.vlm_url, given.vlm_model, given.vlm_tokens), given.vlm_model

    def advise(found: Measurement, patient: Patient, order: Sequence[Evaluation], blood: Mapping[str, float]) -> Advice:
        candidates = [e.candidate for e in order]
        picture = paper_image(found.ecg_mv.numpy(), RATE_HZ, TITLE)
        return checked(ask(picture, instructions(found, patient, order, blood), candidates), name, candidates)

    return advise


def _local(folder: Path, most_tokens: int, free: bool) -> Ask:
    """A model of a folder. Raises UsageError."""
    if not (folder / "config.json").is_file():
        raise UsageError(f"--vlm {folder}: no config.json in it; give the folder of a transformers model")
    try:
        from transformers import AutoModelForImageTextToText, AutoProcessor
    except ImportError:
        raise UsageError("--vlm needs the package transformers; install it, or leave --vlm out") from None
    try:
        processor: Any = AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model: Any = AutoModelForImageTextToText.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=True
        ).eval()
    except Exception as error:  # whatever transformers and its readers say of a folder that is no such model
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UsageError(
            f"--vlm {folder}: transformers cannot load a vision-language model from it ({first[:300]}); give a folder "
            "with config.json, safetensors weights and a processor"
        ) from error
    if getattr(processor, "tokenizer", None) is None:
        raise UsageError(f"--vlm {folder}: its processor has no tokenizer, so it takes no text; give another model")

    def ask(picture: Image, words: str, candidates: Sequence[Candidate]) -> str:
        import torch

        try:
            inputs = processor(text=_prompt(processor, words), images=picture, return_tensors="pt")
            start = inputs["input_ids"].shape[1]
            options: dict[str, Any] = {"max_new_tokens": most_tokens, "do_sample": False}
            if not free:
                end = model.generation_config.eos_token_id
                ends = [end] if isinstance(end, int) else list(end or [processor.tokenizer.eos_token_id])
                allowed = [entry_text(c) for c in candidates if not c.forbidden]
                grammar = RankingGrammar(processor.tokenizer, allowed, ends)
                options["prefix_allowed_tokens_fn"] = lambda _, ids: grammar.next(ids[start:].tolist())
                options["max_new_tokens"] = grammar.longest
            with torch.no_grad():
                written = model.generate(**inputs, **options)
            return processor.tokenizer.decode(written[0, start:], skip_special_tokens=True)
        except Exception as error:  # a model's own code on a picture or text that it cannot take
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UsageError(f"--vlm {folder}: the model could not answer ({first[:300]}); try another") from error

    return ask


def _prompt(processor: Any, words: str) -> str:
    """The instructions as this model wants them, with the place of the picture."""
    if processor.chat_template:
        content = [{"type": "image"}, {"type": "text", "text": words}]
        return processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    return f"{getattr(processor, 'image_token', '<image>')}\n{words}\n"


def _served(url: str, model: str, most_tokens: int) -> Ask:
    """A model behind an address. Raises UsageError."""
    from world_models.ehr_world.causal_lm.client import LLMClient, LLMServerError

    try:
        client = LLMClient(url, model, timeout_s=URL_TIMEOUT_S, retries=1)
    except ValueError as error:
        raise UsageError(f"--vlm-url: {error}") from error

    def ask(picture: Image, words: str, candidates: Sequence[Candidate]) -> str:
        file = io.BytesIO()
        picture.save(file, format="PNG")
        data = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
        content = [{"type": "image_url", "image_url": {"url": data}}, {"type": "text", "text": words}]
        message: Any = {"role": "user", "content": content}
        try:
            (answer,) = client.complete([[message]], max_tokens=most_tokens)
        except LLMServerError as error:
            raise UsageError(f"--vlm-url: {error}") from error
        assert not isinstance(answer, LLMServerError)  # those are raised
        return answer.text

    return ask
