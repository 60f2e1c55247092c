"""Actions as a client may write them: numbers of the action space, names of orders, or text; and how to write them."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np

from clinenv.episodes import Episodes
from clinenv.rendering.labels import order_title
from clinenv.serving.errors import Refused, shown
from clinenv.serving.messages import fields
from clinenv.task import Levels, Menu, Switches

__all__ = ["ActionReader", "Given", "reader_of"]

Given = Sequence[tuple[str, float | None]]  # names as written, each with its amount where one was given
FORMS = ("value", "orders", "text")
_LONGEST = 10_000  # characters of a text
_NOTHING = {"", "nothing", "none", "no orders", "no order"}
_PIECE = re.compile(
    r"(?P<name>[A-Za-z_][\w ()/-]*?)(?:(?:\s*[:=]\s*|\s+)(?P<amount>[+-]?\d+(?:\.\d*)?(?:e[+-]?\d+)?)"
    r"(?:\s*(?P<unit>[A-Za-z%][\w/%]*))?)?"
)


class ActionReader(ABC):
    """Reads the actions of one id.

    Attributes:
        labels: of the action's entries (of a menu: its choices), in their order.
    """

    def __init__(self, episodes: Episodes) -> None:
        self.labels = episodes.interface.codec.labels
        self.space = episodes.interface.codec.space
        self.units = {order.name: order.unit for order in episodes.simulator.world.orders}
        short: dict[str, list[str]] = {}
        for label in self.labels:
            for name in {_plain(label), _plain(order_title(label)), _plain(label.removeprefix("inquire_"))}:
                short.setdefault(name, []).append(label)
        self._known = {name: labels[0] for name, labels in short.items() if len(labels) == 1}

    def __call__(self, action: Any) -> Any:
        """The action as the environment takes it.

        Raises:
            Refused: it is none; the message says what was wrong and what to write instead.
        """
        if not isinstance(action, Mapping):
            raise Refused(
                f'action {shown(action)} is no object; give {{"text": ...}}, {{"orders": ...}} or {{"value": ...}}'
            )
        fields(action, (*FORMS, "metadata"), "an action")
        given = [form for form in FORMS if form in action]
        if len(given) != 1:
            raise Refused(f"an action has exactly one of {', '.join(FORMS)}; this one has {', '.join(given) or 'none'}")
        form = given[0]
        if form == "value":
            return self._value(action["value"])
        return self._text(action["text"]) if form == "text" else self._orders(action["orders"])

    @abstractmethod
    def words(self) -> str:
        """How an action is written, for an agent that reads."""

    @abstractmethod
    def named(self, given: Given) -> Any:
        """The action of these orders. Raises Refused."""

    def barred(self, mask: np.ndarray) -> list[str]:
        """Labels of what the mask int8 [entries] does not allow now."""
        return [label for label, allowed in zip(self.labels, mask.tolist(), strict=True) if not allowed]

    def name(self, written: str) -> str:
        """The label that was meant. Raises Refused."""
        label = self._known.get(_plain(written))
        if label is None:
            close = get_close_matches(_plain(written), self._known, 3, 0.6)
            meant = f"did you mean {' or '.join(dict.fromkeys(self._known[c] for c in close))}? " if close else ""
            raise Refused(f"{shown(written)} is no order here; {meant}how_to_act of the reset's answer lists the names")
        return label

    def _value(self, value: Any) -> Any:
        count = len(self.labels)
        whole = not isinstance(value, list)
        if whole or len(value) != count:
            what = shown(value) if whole else f"a list of {len(value)}"
            raise Refused(f"value {what} is no list of {count} numbers, one for each order; /schema lists them")
        for label, number in zip(self.labels, value, strict=True):
            if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
                raise Refused(f"value {shown(number)} for {label} is no number; give one")
        return value

    def _text(self, text: Any) -> Any:
        if not isinstance(text, str) or len(text) > _LONGEST:
            what = shown(text) if not isinstance(text, str) else f"of {len(text)} characters"
            raise Refused(f"text {what} is no text of at most {_LONGEST} characters; {self.words()}")
        pieces = [piece.strip().strip("-*.").strip() for piece in re.split(r"[\n,;]+", text)]
        return self.named([self._piece(piece) for piece in pieces if _plain(piece) not in _PLAIN_NOTHING])

    def _piece(self, piece: str) -> tuple[str, float | None]:
        found = _PIECE.fullmatch(piece)
        if found is None:
            raise Refused(f"{shown(piece)} is no order with an optional amount; {self.words()}")
        if found["unit"]:
            label = self.name(found["name"])
            unit = self.units.get(label, "")
            ours = {_plain(unit.replace("[U]", "units")), _plain(label[len(order_title(label)) :])}
            if _plain(found["unit"]) not in ours:
                raise Refused(f"{label} is given in {unit}, not in {found['unit']}; write {label} and the number alone")
        return found["name"], None if found["amount"] is None else float(found["amount"])

    def _orders(self, orders: Any) -> Any:
        if isinstance(orders, str):
            return self.named([(orders, None)])
        if isinstance(orders, list) and all(isinstance(name, str) for name in orders):
            return self.named([(name, None) for name in orders])
        numbers = isinstance(orders, dict) and all(isinstance(a, bool | int | float) for a in orders.values())
        if not numbers:
            raise Refused(
                f"orders {shown(orders)} is no list of names and no object of names and amounts; {self.words()}"
            )
        return self.named([(name, float(amount)) for name, amount in orders.items()])

    def labelled(self, given: Given) -> dict[str, float | None]:
        """label -> amount. Raises Refused: an unknown name, or one that is there twice."""
        found: dict[str, float | None] = {}
        for written, amount in given:
            label = self.name(written)
            if label in found:
                raise Refused(f"{label} is ordered twice; order it once")
            found[label] = amount
        return found


class _MenuReader(ActionReader):
    """One choice of a menu."""

    def words(self) -> str:
        return f'write exactly one choice of the menu, by its name, such as "{self.labels[0]}", or its number'

    def _value(self, value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < len(self.labels):
            raise Refused(
                f"value {shown(value)} is no choice of the menu; give a whole number from 0 to {len(self.labels) - 1}"
            )
        return value

    def _text(self, text: Any) -> Any:
        if not isinstance(text, str) or len(text) > _LONGEST:
            raise Refused(f"text {shown(text)} is no text of at most {_LONGEST} characters; {self.words()}")
        written = text.strip().strip(".").strip()
        return self._value(int(written)) if re.fullmatch(r"\d{1,9}", written) else self.named([(written, None)])

    def named(self, given: Given) -> Any:
        if len(given) != 1 or given[0][1] not in (None, 1.0):
            raise Refused(f"{len(given)} orders, or an amount, where one choice is wanted; {self.words()}")
        return self.labels.index(self.name(given[0][0]))


class _SwitchReader(ActionReader):
    """A set of orders at their standard amounts."""

    def __init__(self, episodes: Episodes, actions: Switches) -> None:
        super().__init__(episodes)
        self._standard = actions.standard

    def words(self) -> str:
        return (
            "write the names of the orders to give now, separated by commas or line breaks, each at its standard "
            'amount; or "nothing"'
        )

    def named(self, given: Given) -> Any:
        action = np.zeros(len(self.labels), np.int8)
        for label, amount in self.labelled(given).items():
            standard = self._standard[label]
            if amount not in (None, 0.0, 1.0, standard):
                raise Refused(
                    f"{label} {amount:g}: it is given at its standard amount, {standard:g}, or not at all; "
                    f"write {label} alone"
                )
            action[self.labels.index(label)] = amount != 0.0
        return action


class _LevelReader(ActionReader):
    """One of several amounts of each order."""

    def __init__(self, episodes: Episodes, actions: Levels) -> None:
        super().__init__(episodes)
        self._amounts = actions.amounts

    def words(self) -> str:
        several = [
            f"{name} {' or '.join(f'{a:g}' for a in amounts)}"
            for name, amounts in self._amounts.items()
            if amounts != (0.0, 1.0)
        ]
        more = f"; {', '.join(several)} (the first where you do not say)" if several else ""
        return f'write the names of the orders to give now, separated by commas or line breaks{more}; or "nothing"'

    def named(self, given: Given) -> Any:
        action = np.zeros(len(self.labels), np.int64)
        for label, amount in self.labelled(given).items():
            amounts = tuple(self._amounts[label])
            wanted = 1.0 if amount is None and amounts == (0.0, 1.0) else amount
            if wanted not in amounts:
                told = "no amount" if wanted is None else f"{wanted:g}"
                raise Refused(
                    f"{label} has the amounts {', '.join(f'{a:g}' for a in amounts)}, and {told} was given; "
                    f"write {label} {amounts[-1]:g}, say"
                )
            action[self.labels.index(label)] = amounts.index(wanted)
        return action

    def barred(self, mask: np.ndarray) -> list[str]:
        """See `ActionReader.barred`; an order stands there once, if none of its amounts above the first is allowed."""
        found, start = [], 0
        for label, amounts in self._amounts.items():
            if not mask[start + 1 : start + len(amounts)].any():
                found.append(label)
            start += len(amounts)
        return found


class _DoseReader(ActionReader):
    """An amount of each order."""

    def __init__(self, episodes: Episodes, highest: Mapping[str, float]) -> None:
        super().__init__(episodes)
        self._highest = highest

    def words(self) -> str:
        last = self.labels[-1]
        return (
            "write the orders to give now with their amounts, separated by commas or line breaks, such as "
            f'"{last} {self._highest[last]:g}"; what is yes or no needs none; or "nothing"'
        )

    def named(self, given: Given) -> Any:
        action = np.zeros(len(self.labels), np.float32)
        for label, amount in self.labelled(given).items():
            highest, unit = self._highest[label], self.units[label]
            if amount is None and unit != "bool":
                raise Refused(f"{label} needs an amount in {unit}, at most {highest:g}; write {label} {highest:g}, say")
            wanted = highest if amount is None else amount
            if not 0.0 <= wanted <= highest:
                raise Refused(f"{label} {wanted:g} is outside 0 to {highest:g} {unit}; give an amount within")
            action[self.labels.index(label)] = wanted / highest  # the Box is scaled
        return action


def reader_of(episodes: Episodes) -> ActionReader:
    """The reader of an environment's actions, which are those of its id: scaled where they are amounts."""
    actions = episodes.simulator.task.actions
    if isinstance(actions, Menu):
        return _MenuReader(episodes)
    if isinstance(actions, Switches):
        return _SwitchReader(episodes, actions)
    return _LevelReader(episodes, actions) if isinstance(actions, Levels) else _DoseReader(episodes, actions.highest)


def _plain(name: str) -> str:
    return re.sub(r"[\s_/-]+", " ", name).strip().lower()


_PLAIN_NOTHING = {_plain(word) for word in _NOTHING}
