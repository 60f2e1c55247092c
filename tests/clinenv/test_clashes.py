"""Strangers' modules under our names: met when clinenv is imported, by the name of the package they come from."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from clinenv import clashes

ROOT = Path(__file__).resolve().parents[2]


def stranger(folder: Path, module: str, title: str) -> Path:
    """A folder for the path in which a distribution installed a module of this name."""
    (folder / module).mkdir(parents=True)
    (folder / module / "__init__.py").write_text('"""Agents that talk."""\n')
    told = folder / f"{title.replace('-', '_')}-1.2.dist-info"
    told.mkdir()
    (told / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {title}\nVersion: 1.2\n")
    (told / "RECORD").write_text(f"{module}/__init__.py,,\n")
    return folder


def imported(first: Path, code: str = "import clinenv") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(first), str(ROOT)))}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=first)


def test_nothing_is_wrong_here() -> None:
    assert [clashes.clash_of(name) for name in clashes.OURS] == [None, None]


def test_a_strangers_agents_are_a_warning_and_the_ids_are_there(tmp_path: Path) -> None:
    code = "import clinenv, gymnasium; print('EHRWard-v0' in gymnasium.registry)"
    run = imported(stranger(tmp_path, "agents", "openai-agents"), code)
    assert run.returncode == 0 and run.stdout == "True\n"
    assert "of openai-agents 1.2" in run.stderr and "environment of its own" in run.stderr


def test_a_strangers_world_models_are_an_error(tmp_path: Path) -> None:
    run = imported(stranger(tmp_path, "world_models", "world-models"))
    last = run.stderr.strip().splitlines()[-1]
    assert run.returncode == 1 and last.startswith("clinenv.clashes.Clash: clinenv needs its own module 'world_models'")
    assert "of world-models 1.2" in last and "PYTHONPATH" in last


def test_a_package_that_wrote_over_ours_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both in one folder of site-packages: the last one installed has the `__init__.py`."""
    (tmp_path / "clinenv").mkdir()
    for name in clashes.OURS:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text((ROOT / name / "__init__.py").read_text())
    (tmp_path / "world_models/catalog.py").touch()
    (tmp_path / "agents/policy_agent.py").touch()
    for name in clashes.OURS:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(clashes, "__file__", str(tmp_path / "clinenv/clashes.py"))
    monkeypatch.syspath_prepend(str(tmp_path))
    assert clashes.clash_of("agents") is None
    (tmp_path / "agents/__init__.py").write_text('"""Agents that talk."""\n')
    assert "somebody else's" in str(clashes.clash_of("agents"))
    (tmp_path / "agents/__init__.py").unlink()
    (tmp_path / "agents").rename(tmp_path / "gone")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert "not installed here" in str(clashes.clash_of("agents"))
