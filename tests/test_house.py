"""The rules of the project, read off its source: floors, circles, randomness, units, weight of the import, sizes."""

from __future__ import annotations

import ast
import gc
import importlib
import os
import re
import subprocess
import sys

import pytest

from tests.house import (
    FLOORS,
    ROOT,
    TYPED,
    cycles,
    importable,
    imports,
    long_files,
    looked_up_on_tasks,
    relative,
    sources,
    syntax,
    tracked,
    undocumented,
)

PHYSIOLOGY_NEVER = {"gymnasium", "gym", "pettingzoo", "stable_baselines3", "clinenv", "agents", "benchmarks"}

# Files that may draw from a global generator, each with its reason. Training scripts and tests may as they are.
GLOBAL_RANDOMNESS = {"world_models/ehr_world/train_ends.py": "a new head's first weights, in a fork of the generator"}

DRAWS = {
    "bernoulli",
    "manual_seed",
    "multinomial",
    "normal",
    "poisson",
    "rand",
    "rand_like",
    "randint",
    "randint_like",
    "randn",
    "randn_like",
    "randperm",
    "seed",
}
IN_PLACE_DRAWS = {
    "bernoulli_",
    "cauchy_",
    "exponential_",
    "geometric_",
    "log_normal_",
    "normal_",
    "random_",
    "uniform_",
}
OWN_GENERATORS = {"default_rng", "Random", "SeedSequence", "Generator", "PCG64"}  # fine once they are given a seed
SUFFIX_UNITS = {
    "ms": {"ms"},
    "bpm": {"bpm"},
    "mg": {"mg"},
    "mv": {"mV"},
    "kg": {"kg"},
    "years": {"a"},
    "hours": {"h"},
    "hour": {"h"},
}


@pytest.fixture(autouse=True, scope="module")
def no_collector():
    """A million nodes of syntax trees hold no circles: to go through them again and again took as long as the tests."""
    gc.disable()
    yield
    syntax.cache_clear()
    gc.enable()


def test_imports_only_go_down() -> None:
    wrong = []
    for module, path in sources().items():
        floor = module.split(".")[0]
        above = set(FLOORS[FLOORS.index(floor) + 1 :])
        forbidden = above | (PHYSIOLOGY_NEVER if floor == "world_models" else set()) | {"tests", "examples"}
        tops = {name.split(".")[0] for name in imports(module, path, typing_too=True)}
        wrong += [f"{relative(path)} imports {top}" for top in sorted(tops & forbidden)]
    assert not wrong, "\n".join(wrong)


def test_no_circles_of_imports() -> None:
    assert not cycles(), "\n".join(cycles())


def test_a_file_can_be_read_in_one_sitting() -> None:
    assert not long_files(), "\n".join(long_files())


def test_what_is_public_has_a_docstring() -> None:
    assert not undocumented(), "\n".join(undocumented())


def test_tasks_are_not_asked_for_members_by_name() -> None:
    assert not looked_up_on_tasks(), "\n".join(looked_up_on_tasks())


@pytest.mark.slow
@pytest.mark.parametrize("floor", FLOORS)
def test_every_module_can_be_imported(floor: str) -> None:
    """Commands that no test runs included; in a process of its own, so that no module leans on what another loaded."""
    names = [name for name in importable() if name.split(".")[0] == floor]
    found = subprocess.run(
        [
            sys.executable,
            "-c",
            "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]",
            *names,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr[-2000:]


def draws_globally(tree: ast.Module) -> list[tuple[int, str]]:
    """(line, call) of every call in the file that reads or sets a generator shared by the whole process."""
    aliases: dict[str, str] = {}  # local name -> what it stands for
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.split(".")[0]
                aliases[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                aliases[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or any(keyword.arg == "generator" for keyword in node.keywords):
            continue
        written = ast.unparse(node.func)
        head, _, tail = written.partition(".")
        name = "" if "(" in written else aliases.get(head, head) + ("." + tail if tail else "")
        last = name.rpartition(".")[2]
        stdlib = name.startswith("random.") and aliases.get(head, "").split(".")[0] == "random"
        if last in ("get_state", "getstate"):  # looks where a generator stands, and draws nothing
            continue
        seeded = last in OWN_GENERATORS and (node.args or node.keywords)
        of_torch = re.fullmatch(r"torch(\.cuda|\.random|\.nn\.functional)?\.\w+", name) is not None
        if (
            (stdlib and not seeded)
            or (name.startswith("numpy.random.") and not seeded)
            or (of_torch and last.removesuffix("_all") in DRAWS)
            or (isinstance(node.func, ast.Attribute) and node.func.attr in IN_PLACE_DRAWS)
        ):
            found.append((node.lineno, written))
    return found


def test_no_stray_global_randomness() -> None:
    wrong = []
    for path in sources().values():
        if path.name in {"train.py", "training.py"} or relative(path) in GLOBAL_RANDOMNESS:
            continue
        wrong += [f"{relative(path)}:{line} calls {call}" for line, call in draws_globally(syntax(path))]
    assert not wrong, "noise goes through world_models.keys:\n" + "\n".join(wrong)
    assert not [name for name in GLOBAL_RANDOMNESS if not (ROOT / name).exists()], "an allowed file is gone"


@pytest.mark.parametrize(
    ("code", "count"),
    [
        ("import torch\ntorch.randn(3)", 1),
        ("import torch as t\nt.manual_seed(0)\nt.cuda.manual_seed_all(0)", 2),
        ("import numpy as np\nnp.random.rand()", 1),
        ("from numpy import random\nrandom.normal()", 1),
        ("import random\nrandom.shuffle([])", 1),
        ("from random import shuffle\nshuffle([])", 1),
        ("x.normal_()", 1),
        ("import torch\ntorch.randn(3, generator=g)", 0),
        ("import numpy as np\nnp.random.default_rng(0).normal()", 0),
        ("import numpy as np\nnp.random.default_rng()", 1),
        ("from world_models import keys\nkeys.normal(k, 0, 'x')\nkeys.uniform(k, 0, 'y')", 0),
        ("import torch\ntorch.distributions.Normal(0, 1)\ntorch.nn.Dropout(0.1)", 0),
    ],
)
def test_the_randomness_scan_itself(code: str, count: int) -> None:
    assert len(draws_globally(ast.parse(code))) == count


def test_every_quantity_has_a_unit_that_its_name_agrees_with() -> None:
    from world_models.quantity import Quantity

    seen: dict[int, tuple[str, Quantity]] = {}
    for module in importable():
        if module.split(".")[0] not in TYPED:
            continue
        for name, value in vars(importlib.import_module(module)).items():
            group = value.values() if isinstance(value, dict) else value
            group = group if isinstance(group, list | tuple | type({}.values())) else (group,)
            seen.update({id(q): (f"{module}.{name}", q) for q in group if isinstance(q, Quantity)})
    wrong = []
    for where, q in seen.values():
        suffix = q.name.rpartition("_")[2]
        if not q.unit.strip() or q.unit not in SUFFIX_UNITS.get(suffix, {q.unit}):
            wrong.append(f"{where}: {q.name} has unit {q.unit!r}")
        if not re.fullmatch(r"[a-z][a-z0-9_]*", q.name):
            wrong.append(f"{where}: {q.name!r} is not snake_case")
    assert not wrong, "\n".join(wrong)
    assert len(sources()) < 20 or seen, "no Quantity found: the scan is blind"


def test_importing_clinenv_is_light() -> None:
    code = (
        "import time, sys; t = time.perf_counter(); import clinenv; t = time.perf_counter() - t;"
        "print(t, *sorted({'torch', 'pandas', 'matplotlib', 'scipy', 'wfdb'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    seconds, *heavy = run.stdout.split()
    assert not heavy, f"import clinenv loads {heavy}"
    assert float(seconds) < 2.0, f"import clinenv took {seconds} s"  # 0.4 s is the aim; test machines are busy


def test_no_path_of_somebodys_machine_in_a_tracked_file() -> None:
    machine = re.compile(r"(?<![\w.~)\]}])/(?:work|root|home/\w+|Users/\w+)/")
    wrong = []
    for path in tracked():
        if path.suffix in {".safetensors", ".png", ".zip", ".npz", ".gif"} or path.stat().st_size > 2_000_000:
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if machine.search(line):
                wrong.append(f"{relative(path)}:{number}: {line.strip()[:100]}")
    assert not wrong, "\n".join(wrong)


def test_no_file_shadows_the_standard_library() -> None:
    shadowing = {"random", "typing", "types", "time", "json", "signal", "logging", "dataclasses"}
    assert not [relative(p) for p in tracked() if p.suffix == ".py" and p.stem in shadowing]


def test_every_folder_of_modules_is_a_package() -> None:
    folders = {p.parent for p in sources().values()}
    bare = [relative(f) for f in sorted(folders) if not (f / "__init__.py").exists()]
    assert not bare, f"no __init__.py, so setuptools would leave it out: {bare}"


def test_printing_is_left_to_command_lines() -> None:
    wrong = []
    for module, path in sources().items():
        text = path.read_text(encoding="utf-8")
        command = "argparse" in text or '__name__ == "__main__"' in text
        if module.split(".")[0] == "benchmarks" or command or module.startswith("clinenv.commands.main"):
            continue
        for node in ast.walk(syntax(path)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                wrong.append(f"{relative(path)}:{node.lineno}")
    assert not wrong, f"a library logs or warns; it does not print: {wrong}"
