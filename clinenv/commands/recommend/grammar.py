"""The form of an answer as a grammar over a tokenizer's tokens: a ranking of some or all candidates, each once at most.

    {"ranking": [ENTRY, ENTRY, ...]}

At each step only tokens that go on with such a text may be written (constrained decoding, as in Willard & Louf 2023,
arXiv 2307.09702, here over a list that is known). Whatever model writes, the text parses.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

__all__ = ["RankingGrammar"]

OPENING, BETWEEN, CLOSING = '{"ranking": [', ", ", "]}"


class RankingGrammar:
    """Which tokens may follow.

    Args:
        tokenizer: of transformers.
        entries: the entries' texts; none is the beginning of another, as each is a whole JSON object.
        ends: ids of the tokens that end a text.

    Raises:
        ValueError: no entries or ends, or a tokenizer that cannot write them.
    """

    def __init__(self, tokenizer: Any, entries: Sequence[str], ends: Sequence[int]) -> None:
        if not entries or not ends or any(e is None for e in ends):
            raise ValueError("a grammar needs at least one entry and a token that ends the text")

        def tokens(text: str) -> tuple[int, ...]:
            return tuple(tokenizer.encode(text, add_special_tokens=False))

        self.opening, self.between, self.closing = tokens(OPENING), tokens(BETWEEN), tokens(CLOSING)
        self.entries, self.ends = [tokens(e) for e in entries], list(ends)
        whole = tokenizer.decode([*self.opening, *self.entries[0], *self.closing], skip_special_tokens=True)
        try:
            fine = json.loads(whole) == {"ranking": [json.loads(entries[0])]}
        except ValueError:
            fine = False
        if not fine:
            raise ValueError(f"its tokenizer cannot write JSON: {OPENING}{entries[0]}{CLOSING} comes out as {whole!r}")
        # the longest text: all entries
        self.longest = len(self.opening) + len(self.closing) + 1 + sum(len(e) for e in self.entries)
        self.longest += len(self.between) * (len(self.entries) - 1)

    def next(self, written: Sequence[int]) -> list[int]:
        """Ids that may follow those written since the prompt; the end, where nothing else may."""
        rest, left = tuple(written), list(self.entries)
        if len(rest) < len(self.opening):
            return [self.opening[len(rest)]]
        rest = rest[len(self.opening) :]
        while True:
            whole = next((e for e in left if rest[: len(e)] == e), None)
            if whole is None:  # within an entry
                return sorted({e[len(rest)] for e in left if e[: len(rest)] == rest}) or self.ends
            left.remove(whole)
            rest = rest[len(whole) :]
            ways = [self.closing] + ([self.between] if left else [])
            ways = [w for w in ways if w[: len(rest)] == rest[: len(w)]]
            unfinished = [w for w in ways if len(rest) < len(w)]
            if unfinished:
                return sorted({w[len(rest)] for w in unfinished})
            if not ways or ways[0] is self.closing:
                return self.ends
            rest = rest[len(self.between) :]
