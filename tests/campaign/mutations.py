"""One file's bytes damaged: as disks, editors and strangers do it. Each function takes bytes and a generator."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from typing import Any

__all__ = ["HOSTILE", "damaged", "in_json", "names_leading_out"]

HOSTILE = (
    "", "0", "-1", "nan", "inf", "-inf", "1e400", "1e-320", "9" * 400, "9223372036854775808", "4294967297", "65536",
    "2147483648", "0x10", "1_000", "²", "½", "\x00", "é", "\ufeff", "\u202e", "%s%n", "None", "null", "true", "[]",
    "{}", "a" * 70_000, "-", "--", ".", "..", "/", "\\", ";", "'", '"', "(", "1/0", "1e9/1e-9(0)",
    "2150-02-30", "\r", "\t",
)  # fmt: skip
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 1.5, -0.0, 1e308, 1e-320, 2**31, 2**63, 2**64, 10**400, float("nan"), float("inf"), "",
    "x", "\x00", "é" * 300, "../x", "0", [], [[]], {}, {"": None}, [None], ["x"] * 50, [1e400],
)  # fmt: skip
_WORD = re.compile(rb"[^\s,/:]+")


def _flipped(content: bytearray, rng: random.Random) -> bytes:
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        place = rng.randrange(min(len(content), rng.choice((64, 4096, len(content)))))
        content[place] ^= 1 << rng.randrange(8)
    return bytes(content)


def _overwritten(content: bytearray, rng: random.Random) -> bytes:
    place, size = rng.randrange(len(content)), rng.choice((1, 4, 8, 300))
    content[place : place + size] = rng.choice((b"\x00", b"\xff", b"\x7f", bytes([rng.randrange(256)]))) * size
    return bytes(content)


def _cut(content: bytearray, rng: random.Random) -> bytes:
    return bytes(content[: rng.choice((0, 1, 7, rng.randrange(len(content)), len(content) - 1))])


def _spliced(content: bytearray, rng: random.Random) -> bytes:
    one, other = sorted((rng.randrange(len(content)), rng.randrange(len(content))))
    piece = content[one : min(other, one + 100_000)]
    place = rng.randrange(len(content))
    return bytes(content[:place] + piece + content[place:] if rng.random() < 0.5 else content[:one] + content[other:])


def _padded(content: bytearray, rng: random.Random) -> bytes:
    return bytes(content) + rng.choice((b"\x00" * 10, b"\n" * 1000, b"\xff", b"PK\x03\x04", bytes(content[:5000])))


def _recoded(content: bytearray, rng: random.Random) -> bytes:
    text = content.decode("utf-8", "replace")
    coding = rng.choice(("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "cp500", "utf-7"))
    return text.encode(coding, "replace")


def _lines(content: bytearray, rng: random.Random) -> bytes:
    """A line doubled, lost, moved, cut or joined to the next; the ends of all lines changed."""
    lines = bytes(content).split(b"\n")
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    match rng.randrange(6):
        case 0:
            lines.insert(i, lines[i])
        case 1:
            del lines[i]
        case 2:
            lines[i], lines[j] = lines[j], lines[i]
        case 3:
            lines[i] = lines[i][: rng.randrange(len(lines[i]) + 1)]
        case 4:
            return (rng.choice((b"\r\n", b"\r", b"\x85", b" "))).join(lines)
        case 5:
            lines[i:i] = [lines[i]] * rng.choice((2, 100, 5000))
    return b"\n".join(lines)


def _word(content: bytearray, rng: random.Random) -> bytes:
    """A few words replaced by ones that are too large, too small, or none."""
    for _ in range(rng.choice((1, 1, 1, 3))):
        found = list(_WORD.finditer(bytes(content[:200_000])))
        if not found:
            break
        start, stop = rng.choice(found).span()
        content[start:stop] = rng.choice(HOSTILE).encode()
    return bytes(content)


_BINARY: tuple[Callable[[bytearray, random.Random], bytes], ...] = (_flipped, _overwritten, _cut, _spliced, _padded)
_TEXT = (*_BINARY, _lines, _word, _word, _word, _recoded)


def damaged(content: bytes, rng: random.Random, text: bool) -> bytes:
    """The bytes after one damage; of a text also by lines, words and encodings."""
    if not content or rng.random() < 0.01:
        return b""
    return rng.choice(_TEXT if text else _BINARY)(bytearray(content), rng)


def in_json(content: bytes, rng: random.Random) -> bytes:
    """JSON in which one value is another, a name is lost, doubled or new, or everything lies too deep."""
    if rng.random() < 0.05:
        depth = rng.choice((500, 20_000, 200_000))
        opened, closed = rng.choice((("[", "]"), ('{"a":', "}")))
        return (opened * depth + "1" + closed * (depth if rng.random() < 0.7 else 0)).encode()
    found = json.loads(content)
    places: list[tuple[Any, Any]] = []  # container and key

    def walk(node: Any) -> None:
        pairs = node.items() if isinstance(node, dict) else enumerate(node)
        for key, value in list(pairs):
            places.append((node, key))
            if isinstance(value, dict | list):
                walk(value)

    walk(found)
    if not places:
        return b"[1]"
    container, key = rng.choice(places if rng.random() < 0.5 else places[:40])
    match rng.randrange(6):
        case 0 if isinstance(container, dict):
            del container[key]
        case 1 if isinstance(container, dict):
            container[str(rng.choice(HOSTILE))] = container[key]
        case 2 if isinstance(container, dict):
            twice = f"{{{json.dumps(key)}: 1, {json.dumps(key)}: 2}}"
            container[key] = "@twice"
            return json.dumps(found).replace('"@twice"', twice).encode()
        case _:
            container[key] = _other(container[key], rng)
    return json.dumps(found).encode("utf-8", "surrogatepass")


def _other(value: Any, rng: random.Random) -> Any:
    """Another value: of another type, or of the same and far off."""
    if isinstance(value, int | float) and not isinstance(value, bool) and rng.random() < 0.5:
        return rng.choice((value + 1, -value, value * 1000, value * 10**12, float(value), str(value)))
    if isinstance(value, list) and rng.random() < 0.5:
        return rng.choice((value * 2, value[:-1], value[::-1], [value], value + ["x"], value * 5000))
    return rng.choice(_VALUES)


def names_leading_out(content: bytes, name: str, outside: str, rng: random.Random) -> bytes:
    """The text with a file's name replaced by one that lies elsewhere.

    Args:
        name: as it stands in the text, without its folder and ending.
        outside: path of the file elsewhere, without ending, as seen from the folder: "../outside/rec".
    """
    told = rng.choice((outside, f"./{outside}", f"x/../{outside}", outside.replace("/", "\\"), f"{name}/../{outside}"))
    return content.replace(name.encode(), told.encode(), rng.choice((1, -1)))
