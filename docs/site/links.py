"""Links between files of the repository become links between pages of the site; a link to nothing stops the build."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["ROOT", "Links"]

ROOT = Path(__file__).resolve().parents[2]
ELSEWHERE = re.compile(r"^(?:[a-z][a-z0-9+.-]*:|#|/)")  # an address, a place on the page, a page of the site
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")
FENCED = re.compile(r"(^ {0,3}(?:```|~~~).*?^ {0,3}(?:```|~~~)[^\S\n]*$)", re.MULTILINE | re.DOTALL)


@dataclass
class Links:
    """Which page each file of the repository has become.

    `pages` maps a path from the root to a page's name without its ending. A file that is linked to and has no page is
    noted in `wanted`: it gets a page of its own, with its text.
    """

    pages: dict[str, str]
    wanted: set[str] = field(default_factory=set)

    def rewrite(self, text: str, source: str) -> str:
        """The Markdown of the file `source` with its relative links turned to pages of the site.

        Raises:
            ValueError: a link to a file that is not there.
        """
        parts = FENCED.split(text)
        return "".join(
            part if number % 2 else LINK.sub(lambda found: self._link(found, source), part)
            for number, part in enumerate(parts)
        )

    def _link(self, found: re.Match[str], source: str) -> str:
        picture, label, target = found.groups()
        if ELSEWHERE.match(target):
            return found.group()
        path, _, anchor = target.partition("#")
        path = os.path.normpath(os.path.join(os.path.dirname(source), path))
        if path.startswith("..") or not (ROOT / path).exists():
            raise ValueError(f"{source}: the link {target!r} leads to {path}, which is not there; mend the link")
        if picture:
            return f"![{label}](/pictures/{Path(path).name})"
        return f"[{label}](/{self.page_of(path)}.md{'#' + anchor if anchor else ''})"

    def page_of(self, path: str) -> str:
        """The page of a file or folder of the repository, noted as wanted where it has none yet."""
        if path not in self.pages:
            self.wanted.add(path)
            self.pages[path] = "files/" + path.strip("./").replace("/", "-").replace(".", "-")
        return self.pages[path]
