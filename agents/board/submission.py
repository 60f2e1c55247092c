"""A submission: an agent of somebody else's, told in a JSON file, checked before anything is judged.

    {"name": "my agent", "ids": ["ECGDrug-v0"], "made_in": "ecg-wm-small", "seeds": 3, "licence": "Apache-2.0",
     "contact": "me@example.org", "description": "what it does, in a line", "entry": "my_module:build"}

`entry` is a function that takes an `agents.making.Making` and gives an `Agent` or a `Built`; its module or package lies
beside the file, or is installed. Instead of it `policy` may name a folder beside the file that `agents.sb3` wrote. What
else the agent reads is listed in `files`. All of it goes into the digest, and is copied to where the agent is judged:
what is not in the digest is not there.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from agents.board.stage import HORIZONS, learned_world
from agents.registry import AGENTS, Entry
from world_models.config_json import ConfigError, parse_json
from world_models.files import write_bytes

__all__ = ["Submission", "SubmissionError", "read_submission"]

MOST_SEEDS, LONGEST = 10, 400  # characters of a text
LARGEST = 256 << 20  # bytes that are submitted
MORE = ("latent",)  # measures on request that a submission may ask for
_ADDRESS = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_STORED = "agents.policy_builders:stored"
_SKIPPED = ("__pycache__", ".git")


class SubmissionError(ValueError):
    """What is wrong with a submission; the message names the value, the limit and the remedy."""


@dataclass(frozen=True)
class Submission:
    """What a file says, checked. See the module."""

    name: str
    ids: tuple[str, ...]
    made_in: str
    licence: str
    contact: str
    description: str
    seeds: int = 1
    sees: tuple[str, ...] = ()
    files: tuple[str, ...] = ()  # and folders, from the file's folder on
    entry: str | None = None
    policy: str | None = None
    folder: str = "."  # of the file
    digest: str = ""  # SHA-256 of everything that was submitted

    @property
    def as_entry(self) -> Entry:
        """As the registry has it: a policy, in a process of its own."""
        stored = {} if self.policy is None else {"folder": self.policy}
        return Entry(
            self.name,
            self.ids,
            self.entry or _STORED,
            "policy",
            f"{self.description} ({self.licence}; {self.contact})",
            "learned",
            seeds=self.seeds,
            sees=self.sees,
            options=stored,
            isolated=True,
        )

    def copy_to(self, folder: Path) -> Path:
        """Copy what the digest is over (what is installed apart) below `folder`; returns where it lies."""
        target = folder / self.digest[:16]
        for source in _own(self):
            copied = target / source.relative_to(self.folder)
            copied.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(copied, source.read_bytes())
        target.mkdir(parents=True, exist_ok=True)
        return target


def read_submission(path: str | Path) -> Submission:
    """The submission of a JSON file; nothing of it is run.

    Raises:
        SubmissionError: there is no such file, or what it says cannot be judged.
    """
    path = Path(path)
    if not path.is_file():
        raise SubmissionError(f"{path} is no file; give the JSON that describes the agent: docs/commands.md shows one")
    try:
        told = parse_json(path.read_bytes(), str(path))
    except ConfigError as error:
        raise SubmissionError(f"{error}; see agents/board/submission.py for the form") from None
    _check_names(told)
    folder = path.resolve().parent
    texts = {name: _text(told, name) for name in ("name", "made_in", "licence", "contact", "description")}
    if texts["name"] in {e.name for e in AGENTS}:
        raise SubmissionError(f"name {texts['name']!r} is taken by an agent of the registry; give another")
    ids = _ids(told, texts["made_in"])
    seeds = told.get("seeds", 1)
    if type(seeds) is not int or not 1 <= seeds <= MOST_SEEDS:
        raise SubmissionError(f"seeds={seeds!r} is not a whole number from 1 to {MOST_SEEDS}; give one")
    sees = told.get("sees", [])
    if not isinstance(sees, list) or any(name not in MORE for name in sees):
        raise SubmissionError(f"sees={sees!r} may hold {', '.join(MORE)} alone; leave it out for the observation")
    what: dict[str, Any] = {name: told.get(name) for name in ("entry", "policy")}
    files = told.get("files", [])
    if not isinstance(files, list):
        raise SubmissionError(f"files={files!r} is no list; give the names of files and folders beside {path.name}")
    _check_source(what, folder, files)
    found = Submission(ids=ids, seeds=seeds, sees=tuple(sees), files=tuple(files), folder=str(folder), **what, **texts)
    return Submission(**{**vars(found), "digest": _digest(path, found)})


def _check_names(told: Mapping[str, Any]) -> None:
    known = [f.name for f in fields(Submission) if f.name not in ("folder", "digest")]
    needed = [f for f in known if f not in ("seeds", "sees", "files", "entry", "policy")]
    missing, unknown = [n for n in needed if n not in told], [n for n in told if n not in known]
    if missing or unknown:
        wrong = f"lacks {', '.join(missing)}" if missing else f"has {', '.join(unknown)}, which nobody reads"
        raise SubmissionError(f"the submission {wrong}; its fields are {', '.join(known)}")


def _text(told: Mapping[str, Any], name: str) -> str:
    value = told[name]
    if not isinstance(value, str) or not value.strip() or len(value) > LONGEST or not value.isprintable():
        raise SubmissionError(f"{name}={value!r:.80} is no text of 1 to {LONGEST} printable characters; give one")
    return value


def _ids(told: Mapping[str, Any], made_in: str) -> tuple[str, ...]:
    ids = told["ids"]
    named = isinstance(ids, list) and all(isinstance(i, str) for i in ids)
    if not named or not ids or any(i not in HORIZONS for i in ids) or len(set(ids)) != len(ids):
        raise SubmissionError(f"ids={ids!r} must be a list of some of {', '.join(HORIZONS)}, each once")
    for env_id in ids:
        if made_in != learned_world(env_id):
            raise SubmissionError(
                f"made_in={made_in!r}: {env_id} is judged for agents made in {learned_world(env_id)!r}; an agent made "
                "in another world, or in the oracle, has no place beside them"
            )
    return tuple(ids)


def _check_source(what: Mapping[str, Any], folder: Path, files: Sequence[Any]) -> None:
    if (what["entry"] is None) == (what["policy"] is None):
        raise SubmissionError("give one of entry (module:function) and policy (a folder)")
    if what["entry"] is not None and not (isinstance(what["entry"], str) and _ADDRESS.fullmatch(what["entry"])):
        raise SubmissionError(f"entry={what['entry']!r} is no address; write module:function")
    named = [("files", name) for name in files] + [("policy", what["policy"])] * (what["policy"] is not None)
    for field, name in named:
        if not isinstance(name, str) or not _inside(folder / name, folder) or (folder / name).resolve() == folder:
            raise SubmissionError(f"{field}={name!r:.80} is not inside the folder of the file; move it there")
        target = folder / name
        if not target.exists() or (field == "policy" and not target.is_dir()):
            raise SubmissionError(f"{field}={name!r}: there is no such {'folder' if field == 'policy' else 'file'}")


def _inside(path: Path, folder: Path) -> bool:
    """Whether a path, its links followed, lies in a folder; no name of a file (a NUL, too long) lies anywhere."""
    try:
        path.lstat()
    except FileNotFoundError:
        pass
    except (OSError, ValueError):
        return False
    return path.resolve().is_relative_to(folder)


def _digest(path: Path, found: Submission) -> str:
    """SHA-256 over the file and all that its agent is made of.

    Raises:
        SubmissionError: the entry's module is not found, or there is too much.
    """
    digest = hashlib.sha256(path.read_bytes())
    total = 0
    for source in _own(found) or _installed(found):
        content = source.read_bytes()
        total += len(content)
        if total > LARGEST:
            raise SubmissionError(f"what is submitted is larger than {LARGEST >> 20} MiB; leave out what is not needed")
        digest.update(f"{source.name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def _own(found: Submission) -> list[Path]:
    """The files beside the submission that belong to it; [] for an agent that is installed."""
    beside, named = Path(found.folder), [*found.files, *([found.policy] if found.policy is not None else [])]
    if found.entry is not None:
        module = found.entry.partition(":")[0].split(".")[0]
        named += [name for name in (f"{module}.py", module) if (beside / name).exists()]
    own = sorted({path for name in named for path in _files(beside / name)})
    for path in own:
        if not _inside(path, beside):
            raise SubmissionError(f"{path} is a link that leads out of {beside}; copy the file itself there")
    return own


def _installed(found: Submission) -> list[Path]:
    assert found.entry is not None  # a policy lies beside the file
    module = found.entry.partition(":")[0].split(".")[0]
    spec = importlib.util.find_spec(module) if module not in sys.builtin_module_names else None
    if spec is None or spec.origin is None:
        raise SubmissionError(
            f"entry={found.entry!r}: there is no module {module!r} beside the file, nor is one installed; "
            "put it there or give another"
        )
    origin = Path(spec.origin)
    return _files(origin.parent) if spec.submodule_search_locations else [origin]


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    found = (p for p in path.rglob("*") if p.is_file() and not any(part in _SKIPPED for part in p.parts))
    return sorted(found, key=lambda p: p.relative_to(path).as_posix())
