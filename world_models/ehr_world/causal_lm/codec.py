"""What a language model of stays needs of a tokenisation, and the one over text; `tokens` has the other.

A stay is encoded piece by piece (context, orders of a step, the name before an outcome, the outcome), never as one
string, so that the tokens met in training are those fed in generation, whatever the tokenizer would merge.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from world_models.ehr_world.causal_lm import text as causal_text
from world_models.ehr_world.causal_lm.grammar import EITHER, LABEL, NUMBER, Automaton, text_automaton
from world_models.ehr_world.causal_lm.text import STATUS, STATUSES, AskedItem, Narrative, NarrativeStep
from world_models.files import write_text
from world_models.quantities.ward import INQUIRIES, ORGANISMS

__all__ = ["IGNORED", "NarrativeCodec", "Encoded", "TextCodec", "encode", "last_steps", "train_tokenizer"]
__all__ += ["windows"]

IGNORED = -100  # label of a token without loss, torch's own `ignore_index`
CODEC = "codec.json"
LEAST_VOCABULARY = 300  # tokens: the 256 bytes, the special ones and some merges
CULTURE = "culture"  # of the ward: one of ORGANISMS
KEPT_CHARACTERS, KEPT_TEXTS = 200, 100_000  # a text whose tokens are kept is no longer than this, and so many are
_CULTURES = frozenset(q.name for q in INQUIRIES if q.kind == "culture")


class Encoded(NamedTuple):
    """Tokens of a stay, or of a piece of one."""

    ids: list[int]
    labels: list[int]  # the token itself where it belongs to an outcome, else IGNORED


class NarrativeCodec(Protocol):
    """A tokenisation of narratives."""

    size: int  # tokens are 0 .. size - 1
    pad: int
    automaton: Automaton
    longest: int  # most tokens of an outcome that is generated

    def context(self, narrative: Narrative) -> list[int]:
        """Tokens before the first step."""

    def orders(self, step: NarrativeStep, before: int, hours_per_step: float) -> list[int]:
        """Tokens of a step before its outcomes; `before` is the index of the step before, -1 for none."""

    def ask(self, item: str) -> list[int]:
        """Tokens before an outcome."""

    def outcome(self, asked: AskedItem) -> list[int]:
        """Tokens of an outcome, its end among them."""

    def kind(self, item: str) -> str:
        """Which start of the automaton an item's outcome has."""

    def decode(self, item: str, tokens: Sequence[int], where: float = 0.5) -> AskedItem:
        """An outcome from its tokens; `where` (0 to 1) is the place within a bin, if there are bins."""

    def known(self, narrative: Narrative) -> tuple[Narrative, int]:
        """The narrative without inquiries that the vocabulary has no token for, and how many those were."""

    def save(self, folder: str | Path) -> None:
        """What `codecs.load_codec` reads."""


def encode(codec: NarrativeCodec, narrative: Narrative, all_tokens: bool = False, before: int = -1) -> Encoded:
    """Tokens and labels of a stay: loss on outcomes only, unless `all_tokens` (as ETHOS trains).

    `before` is the index of the step before the first.

    Raises:
        NarrativeError: an inquiry without an outcome.
    """
    ids = list(codec.context(narrative))
    labels = [IGNORED] * len(ids)
    for step in narrative.steps:
        pieces = [(codec.orders(step, before, narrative.hours_per_step), False)]
        for asked in step.asked:
            pieces += [(codec.ask(asked.item), False), (codec.outcome(asked), True)]
        for piece, counts in pieces:
            ids += piece
            labels += piece if counts or all_tokens else [IGNORED] * len(piece)
        before = step.number
    return Encoded(ids, labels)


def windows(codec: NarrativeCodec, narrative: Narrative, limit: int, all_tokens: bool = False) -> list[Encoded]:
    """A stay in pieces of at most `limit` tokens, each begun by the context; every outcome counts in one of them.

    Raises:
        NarrativeError: one step alone is longer; the message says how long.
    """
    found: list[Encoded] = []
    context = list(codec.context(narrative))
    ids, labels, before = list(context), [IGNORED] * len(context), -1
    for step in narrative.steps:
        told = encode(codec, narrative._replace(facts=(), diagnoses=(), steps=(step,)), all_tokens, before)
        extra = len(codec.context(narrative._replace(facts=(), diagnoses=())))
        told = Encoded(told.ids[extra:], told.labels[extra:])
        if len(context) + len(told.ids) > limit:
            raise causal_text.NarrativeError(
                f"step {step.number} has {len(told.ids)} tokens and the context {len(context)}, together over the "
                f"limit of {limit}; raise max_tokens or take narrower steps (regrid)"
            )
        if len(ids) + len(told.ids) > limit:
            found.append(Encoded(ids, labels))
            ids, labels = list(context), [IGNORED] * len(context)
        ids, labels, before = ids + told.ids, labels + told.labels, step.number
    found.append(Encoded(ids, labels))
    return [e for e in found if any(label != IGNORED for label in e.labels)]


def last_steps(codec: NarrativeCodec, narrative: Narrative, limit: int) -> Narrative:
    """The context and as many of the last steps as `limit` tokens hold: to restart a stay that outgrew its model."""
    room = limit - len(codec.context(narrative))
    kept: list[NarrativeStep] = []
    bare = narrative._replace(facts=(), diagnoses=())
    for place in range(len(narrative.steps) - 1, -1, -1):
        before = narrative.steps[place - 1].number if place else -1
        step = encode(codec, bare._replace(steps=(narrative.steps[place],)), before=before)
        room -= len(step.ids) - len(codec.context(bare))
        if room < 0:
            break
        kept.insert(0, narrative.steps[place])
    return narrative._replace(steps=tuple(kept))


class TextCodec:
    """The text form, through any Hugging Face tokenizer.

    Args:
        tokenizer: a `transformers` tokenizer, already loaded.
        numbers_only: generate a number for every item that has a usual unit; otherwise it may also be a label.
        longest: most tokens of a generated outcome.
    """

    def __init__(self, tokenizer: Any, numbers_only: bool = False, longest: int = 24) -> None:
        self.tokenizer, self.numbers_only, self.longest = tokenizer, numbers_only, longest
        self.size = len(tokenizer)
        self.pad = next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0)
        self._cache: dict[str, list[int]] = {}
        self.pieces = _pieces(tokenizer, self.size)
        choices = {STATUS: STATUSES, CULTURE: ORGANISMS}
        self.automaton = text_automaton(
            self.pieces, {kind: [f'"{name}"\n' for name in names] for kind, names in choices.items()}
        )

    def tokens(self, text: str) -> list[int]:
        """Of one piece of a stay; short ones are kept, as they come again and again."""
        if len(text) > KEPT_CHARACTERS:
            return self.tokenizer.encode(text, add_special_tokens=False)
        if text not in self._cache:
            if len(self._cache) > KEPT_TEXTS:
                self._cache.clear()
            self._cache[text] = self.tokenizer.encode(text, add_special_tokens=False)
        return self._cache[text]

    def context(self, narrative: Narrative) -> list[int]:
        """Tokens of the lines before the first step."""
        start = self.tokenizer.bos_token_id
        return ([] if start is None else [start]) + self.tokens(causal_text.context_text(narrative))

    def orders(self, step: NarrativeStep, before: int, hours_per_step: float) -> list[int]:
        """Tokens of the lines of a step before its outcomes; text tells the hour, and needs no step before."""
        lines = causal_text.orders_text(step, hours_per_step).splitlines(keepends=True)
        return [token for line in lines for token in self.tokens(line)]

    def ask(self, item: str) -> list[int]:
        """Tokens of what stands before an outcome on its line."""
        return self.tokens(causal_text.ask_text(item))

    def outcome(self, asked: AskedItem) -> list[int]:
        """Tokens of an outcome and its newline. Raises NarrativeError: there is none."""
        return self.tokens(causal_text.outcome_text(asked))

    def kind(self, item: str) -> str:
        """The start of the automaton: an item's own labels, a number, either, or any label."""
        if item == STATUS:
            return STATUS
        if item in _CULTURES:
            return CULTURE
        if causal_text.usual_unit(item) is None:
            return LABEL
        return NUMBER if self.numbers_only else EITHER

    def known(self, narrative: Narrative) -> tuple[Narrative, int]:
        """The narrative as it is, and 0: text has words for everything."""
        return narrative, 0

    def decode(self, item: str, tokens: Sequence[int], where: float = 0.5) -> AskedItem:
        """The outcome that the tokens spell. Raises NarrativeError: they spell none."""
        return causal_text.parse_outcome(item, "".join(self.pieces[t] for t in tokens))

    def save(self, folder: str | Path) -> None:
        """The tokenizer, and the codec's own settings beside it."""
        self.tokenizer.save_pretrained(folder)
        write_codec(folder, {"codec": "text", "numbers_only": self.numbers_only, "longest": self.longest})


def _pieces(tokenizer: Any, size: int) -> list[str]:
    """The text each token adds behind another one; "" for special tokens and parts of a character.

    Decoded behind an anchor: some decoders drop a blank at the start of what they are given.
    """
    anchor = tokenizer.encode("=", add_special_tokens=False)[-1:]
    options = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
    shown = len(tokenizer.decode(anchor, **options))
    special = set(tokenizer.all_special_ids)
    pieces = tokenizer.batch_decode([[*anchor, token] for token in range(size)], **options)
    return ["" if t in special or "\ufffd" in p else p[shown:] for t, p in enumerate(pieces)]


def train_tokenizer(texts: Iterable[str], size: int = 1024) -> Any:
    """A byte-level BPE tokenizer (a `transformers` fast tokenizer) learnt from texts; digits stay single.

    Made for small models that are trained from nothing; a real checkpoint brings its own.

    Raises:
        ValueError: size is under 300: the 256 bytes, the special tokens and some merges.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    if size < LEAST_VOCABULARY:
        raise ValueError(f"a vocabulary of {size} has no room beside the 256 bytes; give at least {LEAST_VOCABULARY}")
    tokenizer = Tokenizer(models.BPE())
    # names whole, so that frequent ones become one token; every digit alone, as in Qwen's vocabulary (k)
    pattern = Regex(r"[0-9]| ?[A-Za-z_/]+|\n| ?[^0-9A-Za-z_/\n]+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(pattern, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<pad>", "<start>"],
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<start>")


def write_codec(folder: str | Path, settings: dict) -> None:
    """The settings as the codec's JSON file in the folder, which is made if need be."""
    path = Path(folder) / CODEC
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(settings, indent=1) + "\n")
