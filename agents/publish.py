"""Put weights or logged data sets on the Hugging Face Hub: a dry run, until --push is given.

    python -m agents.publish weights ecg-wm-small --repo ME/ecg-wm-small          # says what would be sent
    HF_TOKEN=... python -m agents.publish weights ecg-wm-small --repo ME/ecg-wm-small --push
    HF_TOKEN=... python -m agents.publish data LOGS --repo ME/clinenv-logs --push

Weights: a world by its name or folder, its seal checked before anything is sent; the card is the repository's README.
Data: the logs of a folder (`agents.offline.make`), each held against its sheet; the repository's README names them.
The token is read from HF_TOKEN alone and never printed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from world_models.card_header import header

__all__ = ["PublishError", "data_files", "main", "push", "weights_files"]

TOKEN = "HF_TOKEN"
README = "README.md"
Files = dict[str, bytes | Path]  # path in the repository -> content, or the file that has it


class PublishError(ValueError):
    """What cannot be published; the message names the value and the remedy."""


def weights_files(name_or_folder: str) -> Files:
    """What a world's repository holds.

    Raises:
        PublishError: no such world, weights without a card, or a seal that does not fit.
    """
    from world_models import catalog, checkpoint
    from world_models.card_header import with_header
    from world_models.refresh_cards import SHIPPED

    folder = SHIPPED / name_or_folder
    if not (folder / checkpoint.CONFIG).is_file():
        folder = Path(name_or_folder)
    if not folder.is_dir():
        raise PublishError(f"{name_or_folder} is neither a folder nor a name of {', '.join(catalog.WORLDS)}")
    try:
        checkpoint.sha256(folder)
        card = (folder / checkpoint.CARD).read_text(encoding="utf-8")
        text = with_header(card, checkpoint.read_config(folder))
    except (OSError, ValueError) as error:
        raise PublishError(f"{folder} cannot be published: {error}") from error
    files: Files = {README: text.encode()}
    return files | {name: folder / name for name in (checkpoint.CONFIG, checkpoint.WEIGHTS)}


def data_files(folder: str | Path, published: str | None = None) -> Files:
    """What a repository of logs holds: each log, its sheet in three forms, and a README.

    Args:
        published: ISO date for the Croissant metadata; None: today.

    Raises:
        PublishError: no folder, no log in it, or one without its own sheet and metadata.
    """
    from agents.offline.croissant import path_of
    from agents.offline.sheet import read_sheet

    folder = Path(folder)
    logs = sorted(folder.glob("*.h5")) if folder.is_dir() else []
    if not logs:
        raise PublishError(f"{folder} holds no log; make some with python -m agents.offline.make --out {folder}")
    files: Files = {}
    sheets = []
    for log in logs:
        sheet = read_sheet(log)
        if sheet is None or not path_of(log).is_file() or not log.with_suffix(".md").is_file():
            raise PublishError(f"{log.name} has no sheet of its own beside it; delete it and make it again")
        metadata = json.loads(path_of(log).read_text(encoding="utf-8"))
        metadata["datePublished"] = published or date.today().isoformat()
        files |= {log.name: log, **{log.with_suffix(s).name: log.with_suffix(s) for s in (".json", ".md")}}
        files[path_of(log).name] = (json.dumps(metadata, indent=1, ensure_ascii=False) + "\n").encode()
        sheets.append(sheet)
    return {README: _readme(sheets).encode(), **files}


def _readme(sheets: list[dict[str, Any]]) -> str:
    told: Mapping[str, Any] = {
        "license": "apache-2.0",
        "pretty_name": "clinenv logged courses",
        "tags": ["reinforcement-learning", "offline-rl", "off-policy-evaluation", "simulated-patients"],
        "task_categories": ["reinforcement-learning"],
    }
    rows = [
        f"| [{s['file']}]({Path(s['file']).stem}.md) | {s['about']['env_id']} | {s['about']['patients']:,} | "
        f"{s['steps']:,} | {s['about']['confounding']:g} |"
        for s in sheets
    ]
    lines = [
        "# Logged courses of simulated patients, with the chance of every decision",
        "",
        "Made by clinenv (`python -m agents.offline.make`); `agents.offline.logged.load` reads them. No person's data.",
        "**Not for clinical use.**",
        "",
        "| log | environment | patients | steps | confounding dial |",
        "|---|---|---|---|---|",
        *rows,
    ]
    return header(told) + "\n".join(lines) + "\n"


def push(files: Files, repo: str, kind: str, token: str, endpoint: str | None = None, private: bool = False) -> str:
    """Send all files as one commit; the repository is made if it is not there. Returns the commit's address.

    Args:
        kind: "model" or "dataset".
        endpoint: of the Hub; None: HF_ENDPOINT, or the public one.

    Raises:
        PublishError: the library is missing, or the Hub refused; without the token in its words.
    """
    try:
        from huggingface_hub import CommitOperationAdd, HfApi
    except ImportError as error:
        raise PublishError('huggingface_hub is missing; pip install "clinenv[hub]"') from error
    api = HfApi(endpoint=endpoint, token=token, library_name="clinenv")
    operations: list[Any] = [
        CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in files.items()
    ]
    try:
        api.create_repo(repo, repo_type=kind, private=private, exist_ok=True)
        done = api.create_commit(repo, operations, commit_message="From clinenv", repo_type=kind)
    except Exception as error:  # of its HTTP library, or of its own kinds: whatever was refused
        said = str(error).replace(token, "...").strip()
        raise PublishError(f"the Hub refused {repo}: {type(error).__name__}: {said}") from None
    return str(done.commit_url)


def main(argv: list[str] | None = None) -> int:
    """The command line; the exit status is 2 where nothing can be published, and the message says why."""
    parser = argparse.ArgumentParser(prog="python -m agents.publish", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("what", choices=("weights", "data"))
    parser.add_argument("source", help="a world's name or folder; a folder of logs")
    parser.add_argument("--repo", required=True, metavar="OWNER/NAME", help="on the Hub")
    parser.add_argument("--push", action="store_true", help=f"send it, with the token in {TOKEN}; else a dry run")
    parser.add_argument("--private", action="store_true", help="a repository that is made is private")
    given = parser.parse_args(argv)
    try:
        owner, _, name = given.repo.partition("/")
        if not owner or not name or "/" in name:
            raise PublishError(f"--repo {given.repo!r} is not OWNER/NAME; give both")
        files = weights_files(given.source) if given.what == "weights" else data_files(given.source)
        for path, content in files.items():
            size = len(content) if isinstance(content, bytes) else content.stat().st_size
            print(f"{size / 1e6:9.3f} MB  {path}")
        if not given.push:
            print(f"dry run: nothing was sent to {given.repo}; --push sends it")
            return 0
        token = os.environ.get(TOKEN, "")
        if not token:
            raise PublishError(f"{TOKEN} is not set; make a token with the right to write, and set it")
        kind = "model" if given.what == "weights" else "dataset"
        print(f"sent: {push(files, given.repo, kind, token, private=given.private)}")
    except (PublishError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
