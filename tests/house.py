"""What the source says of itself: files, imports, docstrings, members looked up by name. `python -m tests.house` counts
it, and `tests/test_house.py` asserts it.

"""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FLOORS = ("world_models", "clinenv", "agents", "benchmarks")  # lowest first: imports go only to the left
TYPED = FLOORS[:3]  # what is installed, typed and documented
MAX_LINES = 400
# door of another library, which needs it when it is imported -> that library
DOORS = {
    "clinenv.doors.omnisafe": "omnisafe",
    "clinenv.doors.pufferlib": "pufferlib",
    "clinenv.doors.rllib": "ray",
    "clinenv.doors.rsl_rl": "rsl_rl",
    "clinenv.doors.torchrl": "torchrl",
    "clinenv.serving.app": "fastapi",
    "clinenv.serving.guard": "fastapi",
    "clinenv.serving.live": "fastapi",
    "clinenv.serving.patience": "uvicorn",
    "clinenv.serving.server": "uvicorn",
    "clinenv.serving.space": "fastapi",
    "clinenv.play.server": "starlette",
}


@cache
def tracked() -> tuple[Path, ...]:
    """The files git knows or would take; in a tree without git, those of our folders."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        names = subprocess.run(command, capture_output=True, check=True).stdout.decode().split("\0")
    except (OSError, subprocess.CalledProcessError):
        return tuple(p for top in (*FLOORS, "examples", "tests") for p in (ROOT / top).rglob("*") if p.is_file())
    return tuple(ROOT / name for name in names if name and (ROOT / name).is_file())


@cache
def sources() -> dict[str, Path]:
    """Every Python file of the four floors: module name -> path."""
    found = {}
    for path in tracked():
        parts = path.relative_to(ROOT).with_suffix("").parts
        if path.suffix == ".py" and parts[0] in FLOORS:
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def importable() -> list[str]:
    """The modules that can be imported with what is installed here (not the scripts that are run as __main__)."""
    closed = {door for door, library in DOORS.items() if importlib.util.find_spec(library) is None}
    return [m for m in sources() if not m.endswith("__main__") and m not in closed]


@cache
def syntax(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(module: str, path: Path, typing_too: bool) -> set[str]:
    """Dotted names this module imports, in functions too, and with `typing_too` for annotations alone."""
    names: set[str] = set()

    def visit(node: ast.AST) -> None:
        if not typing_too and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = module if path.name == "__init__.py" else module.rpartition(".")[0]
            base = node.module or ""
            if node.level:
                up = package.split(".")
                base = ".".join([*up[: len(up) - node.level + 1], *([node.module] if node.module else [])])
            full = {f"{base}.{alias.name}" for alias in node.names}
            names.update(full & sources().keys() or {base})
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case):  # no expression imports anything
                visit(child)

    visit(syntax(path))
    return names


def cycles() -> list[str]:
    """Circles of imports, those inside functions included, each as "a -> b -> a"."""
    graph = {m: imports(m, p, typing_too=False) & sources().keys() - {m} for m, p in sources().items()}
    done: set[str] = set()
    found: list[str] = []

    def walk(module: str, trail: tuple[str, ...]) -> None:
        if module in trail:
            found.append(" -> ".join((*trail[trail.index(module) :], module)))
        elif module not in done:
            for other in sorted(graph[module]):
                walk(other, (*trail, module))
            done.add(module)

    for module in sorted(graph):
        walk(module, ())
    return found


def long_files() -> list[str]:
    """Files of over MAX_LINES lines."""
    files = (path for path in tracked() if path.suffix == ".py")
    counted = ((path, len(path.read_text(encoding="utf-8").splitlines())) for path in files)
    return [f"{relative(path)}: {lines} lines" for path, lines in counted if lines > MAX_LINES]


def undocumented() -> list[str]:
    """Public functions, methods and classes of the installed packages without a docstring."""

    def lacking(body: list[ast.stmt], where: str) -> Iterator[str]:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name[0] != "_":
                if not ast.get_docstring(node):
                    yield f"{where}.{node.name}"
                if isinstance(node, ast.ClassDef):
                    yield from lacking(node.body, f"{where}.{node.name}")

    return [n for m, p in sources().items() if m.split(".")[0] in TYPED for n in lacking(syntax(p).body, m)]


def looked_up_on_tasks() -> list[str]:
    """Places that ask a task for a member by its name: `clinenv.task.Task` gives every task all of them."""
    found = []
    for path in sources().values():
        for node in ast.walk(syntax(path)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr"):
                if ast.unparse(node.args[0]).rpartition(".")[2] == "task":
                    found.append(f"{relative(path)}:{node.lineno}")
    return found


def main() -> int:
    """Print the counts, and what mypy says."""
    counts = {
        "circles of imports": cycles(),
        f"files of over {MAX_LINES} lines": long_files(),
        "public names without a docstring": undocumented(),
        "members of a task looked up by name": looked_up_on_tasks(),
    }
    for what, found in counts.items():
        print(f"{what}: {len(found)}", *found[:10], sep="\n  " if found else "")
    checked = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True)
    print("mypy:", (checked.stdout.strip().splitlines() or [checked.stderr.strip()])[-1])
    return int(any(counts.values()) or checked.returncode != 0)


if __name__ == "__main__":
    sys.exit(main())
