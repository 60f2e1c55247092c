"""`clinenv serve` from the outside, and the example that plays the ward by URL."""

from __future__ import annotations

import functools
import importlib
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import yaml

import clinenv
from clinenv.commands.main import main
from clinenv.serving import space
from clinenv.serving.server import running
from examples.stub_chat import chat_server, orders_for


def refused(capsys, *arguments: str) -> str:
    assert main(["serve", "--port", "0", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("clinenv: error: ") and error.count("\n") == 1
    return error


def test_what_cannot_be_served_is_named(capsys, tmp_path) -> None:
    assert "no environment 'ECGDurg-v0'; serve one of ECGDrug-v0" in refused(capsys, "ECGDurg-v0")
    assert "has several agents" in refused(capsys, "CareTeam-v0")
    assert "--stays FOLDER" in refused(capsys, "EHRReplay-v0")
    assert "ECGDrug-v0 cannot be served" in refused(capsys, "ECGDrug-v0", "--world", str(tmp_path / "none"))
    assert "--max-memory-mb 1:" in refused(capsys, "ECGExplain-v0", "--max-memory-mb", "1")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "--port 0: a free one" in refused(capsys, "--port", str(taken.getsockname()[1]))
    for wrong in (["--port", "70000"], ["--idle-s", "0"], ["--max-sessions", "nan"]):
        with pytest.raises(SystemExit) as error:
            main(["serve", *wrong])
        assert error.value.code == 2 and "give one" in capsys.readouterr().err


def test_it_serves_until_interrupted() -> None:
    """Bound to all addresses, which is warned of in one line; stopped by Ctrl-C without a traceback."""
    command = [sys.executable, "-m", "clinenv", "serve", "ECGExplain-v0", "--host", "0.0.0.0", "--port", "0"]
    heard = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # what a shell's background job ignores
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, preexec_fn=heard) as server:
        assert server.stdout and server.stderr
        line = server.stdout.readline()
        assert line.startswith("ECGExplain-v0") and "not for clinical use" in server.stdout.readline()
        address = line.split()[-1].replace("0.0.0.0", "127.0.0.1")
        with urllib.request.urlopen(f"{address}/health", timeout=240) as answer:
            assert b"healthy" in answer.read()
        server.send_signal(signal.SIGINT)
        said = server.stderr.read()
        assert server.wait(240) == 130
    assert said.count("\n") == 2 and "warning: --host 0.0.0.0" in said and said.endswith("clinenv: stopped\n")


def test_the_manifest_names_what_there_is(monkeypatch) -> None:
    folder = Path(space.__file__).parent
    manifest = yaml.safe_load((folder / "openenv.yaml").read_text())
    assert manifest["spec_version"] == 1 and manifest["version"] == clinenv.__version__
    assert f"--port {manifest['port']}".replace(" ", '", "') in (folder / "Dockerfile").read_text()
    module, _, name = manifest["app"].partition(":")
    monkeypatch.setenv("CLINENV_IDS", "ECGExplain-v0")
    app = getattr(importlib.import_module(module), name)
    assert "/ECGExplain-v0/reset" in app.openapi()["paths"] and app is space.app


def test_a_model_plays_a_stay_to_its_end_by_url(served, capsys) -> None:
    """With a model whose first replies are none: it is told so and tries again, so many times."""
    seen = []

    def answer(messages, asked):
        seen.append(messages)
        if asked == 0:
            return "Sure! I would start <fluids>."
        return "furosemide 1000" if asked in (3, 4) else orders_for(messages[-1]["content"])

    example = importlib.import_module("examples.11_ward_by_url")
    with running([served["EHRWard-v0"]]) as url, chat_server(answer) as endpoint:
        ended = example.main(["--url", url, "--endpoint", endpoint, "--seed", "3", "--tries", "2"])
    assert ended["done"] and ended["bad_replies"] == 3 and ended["step_count"] <= 84
    assert "That could not be carried out" in seen[1][-1]["content"] and "no order" in seen[1][-1]["content"]
    assert "standard amount, 40" in seen[4][-1]["content"]
    assert len(seen) == ended["step_count"] + 2  # one step without a reply that was any
    assert f"return {ended['return']:.2f}, bad replies 3" in capsys.readouterr().out
