"""How the benchmarks write and read their results: whole or not at all, each with what made it.

What made a result (`made_by`) stands in the result itself: in a CSV as `# ` lines before the header, one JSON object;
in a JSON file under "made_by"; in a PNG as the text chunk of that name; in Markdown as a comment at the top, in HTML as
one at the end. Where the code or the weights have changed since, the object has a "stale" that says why and what will
remake the file.
"""

from __future__ import annotations

import csv
import hashlib
import importlib.metadata
import io
import json
import math
import platform
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from world_models.files import replacing, write_text

__all__ = [
    "HEIGHTS",
    "RESULTS",
    "ROOT",
    "TRIAL_FIT",
    "made_by",
    "provenance",
    "read_csv",
    "read_json",
    "rounded",
    "sha256_of",
    "shipped_files",
    "write_csv",
    "write_figure",
    "write_json",
    "write_page",
    "write_tables",
]

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
KEY = "made_by"  # in JSON files, PNG chunks, and comments of Markdown and HTML
COMMENT = f"<!-- {KEY}:"
SIGNIFICANT_DIGITS = 6  # of a float in a CSV
# distribution -> module: named where the run has loaded them
PACKAGES = {
    "clinenv": "world_models",  # all of it is one distribution
    "torch": "torch",
    "numpy": "numpy",
    "gymnasium": "gymnasium",
    "stable-baselines3": "stable_baselines3",
    "scikit-learn": "sklearn",
    "neurokit2": "neurokit2",
}
HEIGHTS = "world_models/ecg/ludb_morphology.safetensors"  # of the waves of drawn ECGs
TRIAL_FIT = "world_models/oracles/ecg_drug/fitted_scr002.json"  # the oracle's pharmacology
# world -> parameter files it reads besides weights of its own
PARAMETERS = {
    "oracle": (TRIAL_FIT, "world_models/oracles/ecg_drug/cipa28.csv", HEIGHTS),
    "ecg-wm-small": (TRIAL_FIT,),  # of its cohorts
    "ward-oracle": (),
    "progression-oracle": (HEIGHTS,),
}
READER = {"progression-oracle": "cardiac-jepa-small"}  # whose weights read an oracle's ECGs


# ---- what made a result


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def shipped_files(world: str) -> tuple[str, ...]:
    """Weight and parameter files of a catalogued world, as paths from the project's root."""
    from world_models import catalog, checkpoint

    name = READER.get(world, world)
    weights = catalog.WORLDS[name].weights
    own = (f"world_models/weights/{weights}/{checkpoint.WEIGHTS}",) if weights else ()
    return own + PARAMETERS.get(world, ())


def made_by(
    command: str,
    argv: Sequence[str] | None,
    seeds: Mapping[str, Any],
    worlds: Iterable[str | Path] = (),
    files: Iterable[str] = (),
) -> dict[str, Any]:
    """What is making a result: command, date (UTC), versions, seeds, seals and SHA-256 of the files behind it.

    Args:
        command: the module, as in `python -m MODULE`.
        argv: its arguments; None: the process's own. Of a path its last part alone is told.
        seeds: what it was drawn from, by meaning.
        worlds: catalogued worlds it uses, or folders of one's own.
        files: further parameter files, as paths from the project's root.

    Returns:
        A dict of plain JSON. "seals": name -> seal of the shipped weights; "files": path -> SHA-256 of what ships;
        "own_weights": folder -> seal, of worlds that do not ship.
    """
    from world_models import catalog, checkpoint  # torch, which readers of results need not load

    arguments = [_without_folder(a) for a in (sys.argv[1:] if argv is None else argv)]
    named = list(dict.fromkeys(str(w) for w in worlds))
    shipped = [w for w in named if w in catalog.WORLDS]
    paths = dict.fromkeys([*(path for w in shipped for path in shipped_files(w)), *files])
    learned = dict.fromkeys(READER.get(w, w) for w in shipped)
    made: dict[str, Any] = {
        "command": shlex.join(["python", "-m", command, *arguments]),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "versions": _versions(),
        "seeds": dict(seeds),
        "seals": {w: checkpoint.sha256(catalog.weights_folder(w)) for w in learned if catalog.WORLDS[w].weights},
        "files": {path: sha256_of(ROOT / path) for path in paths},
    }
    own = {Path(w).name: checkpoint.sha256(w) for w in named if w not in catalog.WORLDS and Path(w).is_dir()}
    return made | ({"own_weights": own} if own else {})


def _without_folder(argument: str) -> str:
    """An argument with nothing of the machine it was given on."""
    path = Path(argument)
    return path.name if path.is_absolute() or ".." in path.parts else argument


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for distribution, module in PACKAGES.items():
        if module in sys.modules:
            try:
                found[distribution] = importlib.metadata.version(distribution)
            except importlib.metadata.PackageNotFoundError:  # a checkout that was never installed
                found[distribution] = "not installed"
    return found


def provenance(path: str | Path) -> dict[str, Any]:
    """What made a result, as `made_by` gave it.

    Raises:
        ValueError: the file does not say.
    """
    path = Path(path)
    found: Any = None
    if path.suffix == ".csv":
        found = _parsed("\n".join(line[1:] for line in _split(path)[0]))
    elif path.suffix == ".json":
        content = json.loads(path.read_text(encoding="utf-8"))
        found = content.get(KEY) if isinstance(content, dict) else None
    elif path.suffix == ".png":
        from PIL import Image

        with Image.open(path) as image:
            found = _parsed(str(image.info.get(KEY, "")))
    elif path.suffix == ".md":
        comment = path.read_text(encoding="utf-8").partition("-->")[0]
        found = _parsed(comment.removeprefix(COMMENT)) if comment.startswith(COMMENT) else None
    elif path.suffix == ".html":
        _, _, comment = path.read_text(encoding="utf-8").rpartition(COMMENT)
        found = _parsed(comment.partition("-->")[0])
    if not isinstance(found, dict):
        raise ValueError(f"{path} does not say what made it")
    return found


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


# ---- reading


def read_csv(path: str | Path) -> list[dict[str, str]]:
    """The rows of a table, all as text, without what made it."""
    return list(csv.DictReader(_split(Path(path))[1]))


def read_json(path: str | Path) -> Any:
    """The content of a JSON result, without what made it."""
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    if isinstance(content, dict):
        content.pop(KEY, None)
    return content


def _split(path: Path) -> tuple[list[str], list[str]]:
    """The `#` lines at the top of a CSV, and the lines of its table with their ends."""
    with path.open(newline="", encoding="utf-8") as file:
        lines = file.readlines()
    comments = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return lines[:comments], lines[comments:]


# ---- writing


def write_csv(path: str | Path, rows: Sequence[Mapping[str, Any]], made: Mapping[str, Any] | None) -> None:
    """Rows to CSV, the columns in the order in which the rows first name them; floats to six significant digits.

    Args:
        made: from `made_by`. None: a plain table without comments, for a file whose layout others have fixed.
    """
    path = Path(path)
    text = io.StringIO()
    if made is not None:
        text.writelines(f"# {line}\n" for line in json.dumps(dict(made), indent=1).splitlines())
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text.getvalue())


def _cell(value: Any) -> Any:
    return f"{value:.{SIGNIFICANT_DIGITS}g}" if isinstance(value, float) else value


def write_tables(
    prefix: Path,
    tables: Mapping[str, Sequence[Mapping[str, Any]]],
    made: Mapping[str, Any],
    most: Mapping[str, int] | None = None,
) -> None:
    """Each table to PREFIX_name.csv, its path and rows printed; of those in `most` so many rows at most."""
    for name, rows in tables.items():
        path = prefix.with_name(f"{prefix.name}_{name}.csv")
        write_csv(path, rows, made)
        print(path)
        for row in rows[: (most or {}).get(name)]:
            print({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()})


def write_json(path: str | Path, content: Mapping[str, Any], made: Mapping[str, Any]) -> None:
    """A JSON object with what made it; NaN and infinities, which JSON does not have, become null."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(_finite({**content, KEY: dict(made)}), indent=1, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value


def rounded(value: Any, decimals: int = 6) -> Any:
    """JSON with every float rounded: figures for people, without the digits that differ between machines."""
    if isinstance(value, Mapping):
        return {k: rounded(v, decimals) for k, v in value.items()}
    if isinstance(value, list):
        return [rounded(v, decimals) for v in value]
    return round(value, decimals) if isinstance(value, float) and math.isfinite(value) else value


def write_page(path: str | Path, text: str, made: Mapping[str, Any]) -> None:
    """A Markdown or HTML page with what made it in a comment: at the top, or after an HTML page's end."""
    path = Path(path)
    comment = f"{COMMENT} {json.dumps(dict(made)).replace('>', chr(92) + 'u003e')} -->\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text + comment if path.suffix == ".html" else comment + text)


def write_figure(path: str | Path, figure: Any, made: Mapping[str, Any], dpi: int = 120) -> None:
    """A PNG of a matplotlib figure or a PIL image, with what made it in its text chunk "made_by"."""
    path, text = Path(path), json.dumps(dict(made))
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        if hasattr(figure, "savefig"):
            figure.savefig(part, format="png", dpi=dpi, metadata={KEY: text})
        else:
            from PIL.PngImagePlugin import PngInfo

            chunks = PngInfo()
            chunks.add_text(KEY, text)
            figure.save(part, format="PNG", pnginfo=chunks)
