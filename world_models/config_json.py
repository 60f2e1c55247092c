"""JSON to a configuration and no further: an unknown, missing or mistyped field is an error that names it."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol, TypeVar

__all__ = ["ConfigError", "check_sizes", "from_json", "parse_json"]


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]


T = TypeVar("T", bound=_Dataclass)


class ConfigError(ValueError):
    """JSON that is no configuration of this version; the message names the field, what it holds and what it should."""


def parse_json(text: str | bytes, where: str) -> dict[str, Any]:
    """A JSON object, strictly: a name given twice and numbers that are not finite are refused.

    Raises:
        ConfigError: not such an object.
    """

    def once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            names = [name for name, _ in pairs]
            raise ValueError(f"{next(n for n in names if names.count(n) > 1)!r} is given twice")
        return made

    def finite(number: str) -> float:
        value = float(number)
        if not math.isfinite(value):
            raise ValueError(f"{number} is no finite number")
        return value

    try:
        found = json.loads(text, object_pairs_hook=once, parse_float=finite, parse_constant=finite)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise ConfigError(f"{where} is no JSON ({error}); restore or make it again") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{where} holds a {type(found).__name__}, not a JSON object; restore or make it again")
    return found


def from_json(kind: type[T], value: object, where: str) -> T:
    """A dataclass from the JSON object that `dataclasses.asdict` and `json` made of one.

    Fields may be str, bool, int, float, tuples, dataclasses, mappings (taken as they are) and any of these or None. A
    field with a default may be left out. A whole number is taken for a float, and nothing else is cast.

    Raises:
        ConfigError: an unknown or missing field, another type, or values that the dataclass itself refuses.
    """
    if not isinstance(value, dict):
        raise ConfigError(f"{where} must be an object, not {_told(value)}")
    known = {f.name: f for f in dataclasses.fields(kind)}
    unknown = sorted(set(value) - set(known))
    if unknown:
        raise ConfigError(
            f"{where} has a field {unknown[0]!r} that this version does not know; it knows {', '.join(known)}. Use the "
            "version that wrote it, or take the field out"
        )
    nothing = dataclasses.MISSING
    needed = [name for name, f in known.items() if f.default is nothing and f.default_factory is nothing]
    missing = [name for name in needed if name not in value]
    if missing:
        raise ConfigError(f"{where} lacks the field {missing[0]!r}; restore or make it again")
    types_ = typing.get_type_hints(kind)
    made = {name: _converted(types_[name], part, f"{where}: {name}") for name, part in value.items()}
    try:
        return kind(**made)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None


def check_sizes(config: object, least: int = 1, **most: int) -> None:
    """Raises ValueError unless each of these fields is a whole number from `least` to its limit.

    The limits lie far above what anyone trains; they keep a damaged or made-up file from asking for a machine's memory.
    """
    for name, limit in most.items():
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= limit:
            raise ValueError(f"{name}={_told(value)} must be a whole number, {least} or more and at most {limit:,}")


def _converted(kind: Any, value: object, where: str) -> Any:
    """The value as a field of this type. Raises ConfigError: it is of another."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        (kind,) = (part for part in parts if part is not type(None))
        return _converted(kind, value, where)
    if origin is tuple:
        return _tuple(parts, value, where)
    if origin is Mapping:
        if not isinstance(value, dict):
            raise ConfigError(f"{where} must be an object, not {_told(value)}")
        return value
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return from_json(kind, value, where)
    return _plain(kind, value, where)


def _tuple(parts: tuple[Any, ...], value: object, where: str) -> tuple[Any, ...]:
    """A JSON list as the tuple of these types; (T, ...) is of any length."""
    if not isinstance(value, list):
        raise ConfigError(f"{where} must be a list, not {_told(value)}")
    each = [parts[0]] * len(value) if parts[-1] is Ellipsis else list(parts)
    if len(value) != len(each):
        raise ConfigError(f"{where} must be a list of {len(each)}, not of {len(value)}")
    return tuple(_converted(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(each, value, strict=True)))


def _plain(kind: type, value: object, where: str) -> object:
    """A text, number or truth value of this very type; a whole number also stands for a float."""
    if kind is float and type(value) is int:
        try:
            return float(value)
        except OverflowError:
            raise ConfigError(f"{where} is a whole number of {len(str(value))} digits, too large") from None
    if type(value) is not kind:
        raise ConfigError(f"{where} must be of type {kind.__name__}, not {_told(value)}")
    return value


def _told(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
