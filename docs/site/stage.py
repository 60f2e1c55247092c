"""The sources of the site, gathered from the whole repository into one folder that Sphinx reads.

What stands somewhere already (README, docs, cards, docstrings, results) is taken from there, so it is said once; only
`pages/` and `notebooks/` are written for the site.
"""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

from docs.site import environments, physiology, reference, results, worlds
from docs.site.links import ROOT, Links

__all__ = ["stage"]

HERE = Path(__file__).parent
# file of the repository -> page of the site
PAGES = {
    "README.md": "index",
    "docs/install.md": "install",
    "docs/guide.md": "guide",
    "docs/commands.md": "commands",
    "docs/data.md": "extend/data",
    "world_models/data/README.md": "extend/formats",
    "docs/extend.md": "extend/index",
    "docs/architecture.md": "architecture",
    "docs/log.md": "log",
    "docs/ward_oracle.md": "physiology/ward_parameters",
    "benchmarks/README.md": "results/benchmarks",
    "docs/results": "results/index",
    "benchmarks/results": "results/files",
    "world_models/weights": "worlds/index",
    "examples": "examples",
}
TOO_LONG = 100_000  # characters of a file that is shown whole


def stage(target: Path) -> None:
    """Write every source of the site below `target`; a file that stays as it is is not touched, so Sphinx skips it.

    Raises:
        ValueError: a link that leads nowhere, or a file without what its page shows.
    """
    more = [path.relative_to(ROOT).as_posix() for path in (*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md"))]
    own = PAGES | {path: f"more/{Path(path).stem.lower()}" for path in more if path not in PAGES}
    links = Links({**own, **environments.pages(), **worlds.pages(), **results.pages()})
    texts = {
        page: links.rewrite((ROOT / path).read_text(encoding="utf-8"), path)
        for path, page in own.items()
        if (ROOT / path).is_file()
    }
    for path in sorted((HERE / "pages").rglob("*.md")):
        page = path.relative_to(HERE / "pages").with_suffix("").as_posix()
        texts[page] = links.rewrite(path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix())
    for generate in (environments.generate, worlds.generate, results.generate, physiology.generate, reference.generate):
        texts |= generate(links)
    texts["examples"] = _examples(links)
    texts["index"] += "\n" + (HERE / "contents.md").read_text(encoding="utf-8")
    texts |= _linked_files(links)
    files = {target / f"{page}.md": text.encode("utf-8") for page, text in texts.items()}
    for path in (*(ROOT / "docs").glob("*.png"), *results.RESULTS.glob("*.png"), *(HERE / "films").glob("*.gif")):
        files[target / "pictures" / path.name] = path.read_bytes()
    for path in (path for path in results.RESULTS.iterdir() if path.suffix in {".csv", ".json", ".html"}):
        files[target / "data" / path.name] = path.read_bytes()
    for path in (HERE / "notebooks").glob("*.ipynb"):
        files[target / "notebooks" / path.name] = path.read_bytes()
    _write(target, files)


def _write(target: Path, files: dict[Path, bytes]) -> None:
    """The folder `target` holds these files and no others."""
    for path in [path for path in target.rglob("*") if path.is_file() and path not in files]:
        path.unlink()
    for path, content in files.items():
        if not path.exists() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def _examples(links: Links) -> str:
    """The examples with their first line, each linked to a page with its code."""
    rows = []
    for path in sorted((ROOT / "examples").rglob("*.py")):
        if path.name != "__init__.py":
            name = path.relative_to(ROOT).as_posix()
            text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            module = name.removesuffix(".py").replace("/", ".")
            command = f"python -m {module}" if "/doors/" in name or "quickstart" in name else f"python {name}"
            rows.append(f"| [{name}](/{links.page_of(name)}.md) | {text.splitlines()[0]} | `{command}` |")
    head = "# Examples\n\nFiles of the checkout, one question each; each takes `--help`.\n\n"
    return head + "| file | what it shows | run it |\n|---|---|---|\n" + "\n".join(rows) + "\n"


def _linked_files(links: Links) -> dict[str, str]:
    """A page for each file or folder of the repository that a page links to and that has none of its own."""
    found: dict[str, str] = {}
    done: set[str] = set()
    while links.wanted - done:
        for name in sorted(links.wanted - done):
            done.add(name)
            path = ROOT / name
            found[links.pages[name]] = _folder(name, links) if path.is_dir() else _file(path, name)
    return found


def _file(path: Path, name: str) -> str:
    text = path.read_text(encoding="utf-8")
    shown = text[:TOO_LONG]
    fence = "`" * max(4, 1 + max((len(run) for run in re.findall(r"`+", shown)), default=0))
    cut = f"\nThe first {TOO_LONG:,} characters of {len(text):,}.\n" if len(text) > TOO_LONG else ""
    kind = {".py": "python", ".json": "json", ".md": "markdown", ".toml": "toml"}.get(path.suffix, "text")
    return f"---\norphan: true\n---\n\n# {name}\n{cut}\n{fence}{kind}\n{shown.rstrip()}\n{fence}\n"


def _folder(name: str, links: Links) -> str:
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--", name]
    listed = subprocess.run(command, capture_output=True, check=True).stdout.decode().split("\0")
    files = sorted(path for path in listed if path.endswith((".py", ".md", ".json", ".csv")))
    rows = [f"- [{path}](/{links.page_of(path)}.md)" for path in files]
    return f"---\norphan: true\n---\n\n# {name}\n\n" + "\n".join(rows) + "\n"
