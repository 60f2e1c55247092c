"""The grammar of an outcome as an automaton over tokens: what a language model may write next, so that it parses.

States are rows of two tables over the vocabulary: `next`, the state after a token, and `after`, the fewest tokens from
there to the end. A model that has `budget` tokens left may take a token only if the state it leads to can still end
within them, so an outcome always ends, and always parses, whatever the weights.

`text_automaton` compiles the outcome line of `text` for any tokenizer: the grammar is one of characters, and a
token is allowed where the grammar can read all its characters.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["DONE", "EITHER", "LABEL", "NUMBER", "Automaton", "GrammarError", "OutcomeLogits", "finish"]
__all__ += ["text_automaton"]

DONE = 0  # the state behind the outcome; nothing is allowed there
EITHER, NUMBER, LABEL = "either", "number", "label"  # names of start states
# Longest number: -123456789.123456e-12. Larger exponents are never generated: the tables' ranges end at 1e6.
WHOLE_DIGITS, FRACTION_DIGITS, EXPONENT_DIGITS = 9, 6, 2


class GrammarError(ValueError):
    """A vocabulary with which an outcome cannot be written."""


_NEVER = 32767  # in `after`: not allowed, or no way to the end


@dataclass(frozen=True)
class Automaton:
    """S states over V tokens; 16 bits, as vocabularies reach 150,000."""

    next: Tensor  # int16 [S, V], -1: not allowed
    after: Tensor  # int16 [S, V] fewest tokens to the end behind this one
    left: Tensor  # int16 [S] fewest tokens to the end
    starts: Mapping[str, int]  # kind of outcome -> state

    def to(self, device: torch.device | str) -> Automaton:
        """The same automaton, its tables on the device."""
        return Automaton(self.next.to(device), self.after.to(device), self.left.to(device), self.starts)

    def start(self, name: str) -> int:
        """Raises KeyError with the names there are."""
        if name not in self.starts:
            raise KeyError(f"no outcome of kind {name!r}; there are: {', '.join(list(self.starts)[:20])}")
        return self.starts[name]

    def allowed(self, state: Tensor, budget: Tensor | int) -> Tensor:
        """bool [B, V]: tokens after which the outcome can still end with `budget` - 1 tokens more.

        Args:
            state: int64 [B].
            budget: tokens that may still be taken, this one among them, [B] or one for all; raised to what is needed.
        """
        left = torch.as_tensor(budget, dtype=torch.int16, device=state.device).expand_as(state)
        return self.after[state] < torch.maximum(left, self.left[state]).unsqueeze(-1)

    def advance(self, state: Tensor, token: Tensor) -> Tensor:
        """The state [B] after a token [B]; a row that is done stays done."""
        return torch.where(state == DONE, state, self.next[state, token].to(torch.int64))

    def accepts(self, name: str, tokens: Iterable[int]) -> bool:
        """Whether these tokens are one whole outcome."""
        state = self.start(name)
        for token in tokens:
            if state in (DONE, -1):
                return False
            state = int(self.next[state, token])
        return state == DONE


def finish(rows: Sequence[Mapping[int, int]], size: int, starts: Mapping[str, int]) -> Automaton:
    """An automaton from `rows[state] = {token: next state}` over tokens 0 .. size - 1; row 0 is DONE and is empty.

    Raises:
        GrammarError: a state that can be reached has no way to the end.
    """
    following = torch.full((len(rows), size), -1, dtype=torch.int16)
    before: list[set[int]] = [set() for _ in rows]
    for state, row in enumerate(rows):
        if row:
            following[state, torch.tensor(list(row))] = torch.tensor(list(row.values()), dtype=torch.int16)
        for target in set(row.values()):
            before[target].add(state)
    left = [_NEVER] * len(rows)
    left[DONE] = 0
    queue = deque([DONE])
    while queue:
        state = queue.popleft()
        for earlier in before[state]:
            if left[earlier] == _NEVER:
                left[earlier] = left[state] + 1
                queue.append(earlier)
    stuck = [name for name, state in starts.items() if left[state] == _NEVER]
    if stuck:
        raise GrammarError(
            f"the vocabulary has no tokens to write an outcome of kind {stuck[0]!r}; it needs each digit, '.', '-', "
            "the quote and the newline as tokens of their own, as byte-level vocabularies have"
        )
    distance = torch.tensor(left, dtype=torch.int16)
    after = torch.where(following >= 0, distance[following.clamp_min(0).to(torch.int64)], _NEVER)
    return Automaton(following, after, distance, dict(starts))


def text_automaton(pieces: Sequence[str], choices: Mapping[str, Sequence[str]] | None = None) -> Automaton:
    """The automaton of an outcome line, for a vocabulary.

    Args:
        pieces: the text of each token, "" for one that must never be written (a special token, half a character).
        choices: outcomes of which exactly one must be written, each with its newline: kind -> texts.

    Returns:
        An automaton with the starts EITHER, NUMBER, LABEL and those of `choices`.

    Raises:
        GrammarError: see `finish`.
    """
    machine = _Characters()
    trie: dict[tuple[str, str], int] = {}
    starts = {EITHER: machine.either, NUMBER: machine.number, LABEL: machine.label}
    for kind, texts in (choices or {}).items():
        if not texts or not all(t.endswith("\n") and t.count("\n") == 1 for t in texts):
            raise GrammarError(f"choices of {kind!r} must be texts that end in their only newline, got {list(texts)}")
        starts[kind] = machine.choose(kind, texts, trie)
    by_first: dict[str, list[tuple[int, str]]] = {}
    for token, piece in enumerate(pieces):
        if piece:
            by_first.setdefault(piece[0], []).append((token, piece))
    rows: list[dict[int, int]] = []
    for state, moves in enumerate(machine.moves):
        row: dict[int, int] = {}
        firsts = by_first if machine.free(state) else {c: by_first[c] for c in moves if c in by_first}
        for tokens in firsts.values():
            for token, piece in tokens:
                target = machine.read(state, piece)
                if target is not None:
                    row[token] = target
        rows.append(row)
    return finish(rows, len(pieces), starts)


class OutcomeLogits:
    """A logits processor for `transformers`' own `generate(..., logits_processor=[OutcomeLogits(...)])`.

    Args:
        automaton: of the codec.
        kinds: the kind of outcome each row writes, [B].
        prompt: tokens before the outcome, the filling among them.
        longest: most tokens of an outcome.
        after: the token written behind an outcome; generate's `eos_token_id`.
    """

    def __init__(self, automaton: Automaton, kinds: Sequence[str], prompt: int, longest: int, after: int) -> None:
        self.automaton, self.prompt, self.longest, self.after = automaton, prompt, longest, after
        self.starts = [automaton.start(kind) for kind in kinds]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        state = torch.tensor(self.starts, dtype=torch.int64, device=input_ids.device)
        for token in input_ids[:, self.prompt :].unbind(1):
            state = self.automaton.advance(state, token)
        taken = input_ids.shape[1] - self.prompt
        allowed = self.automaton.allowed(state, self.longest - taken)
        done = state == DONE
        allowed[done] = False
        allowed[done, self.after] = True
        masked = scores.new_full(scores.shape, -torch.inf)
        masked[:, : allowed.shape[1]] = scores[:, : allowed.shape[1]].masked_fill(~allowed, -torch.inf)
        return masked


class _Characters:
    """The grammar over characters: `moves[state]` maps a character to a state; open states read any other, too."""

    def __init__(self) -> None:
        self.moves: list[dict[str, int]] = [{}]  # DONE
        self._open: dict[int, int] = {}  # state -> where any character that is not in its moves leads
        closed = self._add({"\n": DONE})
        inside = self._add({})
        escaped = self._add({c: inside for c in "\\nrpq"})
        self.moves[inside] = {"\\": escaped, '"': closed}
        self._open[inside] = inside
        digits = "0123456789"
        exponent = {"\n": DONE}
        for _ in range(EXPONENT_DIGITS):
            exponent = {"\n": DONE, **dict.fromkeys(digits, self._add(exponent))}
        first_exponent = self._add({c: s for c, s in exponent.items() if c != "\n"})
        to_exponent = {"e": self._add({"-": first_exponent})}
        fraction = self._add({"\n": DONE, **to_exponent})
        for _ in range(FRACTION_DIGITS - 1):
            fraction = self._add({"\n": DONE, **to_exponent, **dict.fromkeys(digits, fraction)})
        point = self._add(dict.fromkeys(digits, fraction))
        after = {"\n": DONE, ".": point, **to_exponent}
        whole = self._add(after)
        for _ in range(WHOLE_DIGITS - 1):
            whole = self._add({**after, **dict.fromkeys(digits, whole)})
        minus = self._add(dict.fromkeys(digits, whole))
        begin = {**dict.fromkeys(digits, whole), "-": minus}
        self.number = self._add(begin)
        self.label = self._add({'"': inside})
        self.either = self._add({**begin, '"': inside})

    def _add(self, moves: dict[str, int]) -> int:
        self.moves.append(dict(moves))
        return len(self.moves) - 1

    def choose(self, kind: str, texts: Sequence[str], trie: dict[tuple[str, str], int]) -> int:
        for text in texts:
            for length in range(len(text)):
                if (kind, text[:length]) not in trie:
                    trie[kind, text[:length]] = self._add({})
            for length in range(len(text)):
                target = DONE if length + 1 == len(text) else trie[kind, text[: length + 1]]
                self.moves[trie[kind, text[:length]]][text[length]] = target
        return trie[kind, ""]

    def free(self, state: int) -> bool:
        return state in self._open

    def read(self, state: int, piece: str) -> int | None:
        """The state after all of a piece's characters, or None."""
        for character in piece:
            following = self.moves[state].get(character)
            if following is None:
                following = self._open.get(state) if character not in '\n\r|"' else None
            if following is None:
                return None
            state = following
        return state
