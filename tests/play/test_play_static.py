"""The page without a server: its networks against the world; and, by `make play-static`, an episode in a browser.

The folder that CLINENV_STATIC_PAGE names is then played; all the networks are held against the world when it is made.
"""

from __future__ import annotations

import functools
import http.server
import json
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from clinenv.commands.main import main
from clinenv.play.games import GAMES
from clinenv.play.session import Session
from clinenv.play.static import equality, folder, networks, patients, runtime
from world_models import keys

PAGE = os.environ.get("CLINENV_STATIC_PAGE")
LIMIT_MS = 300_000  # on a machine that others keep busy
RULE = (4, 0, 0, 1, 0, 0)


@pytest.fixture(scope="module")
def session() -> Session:
    return Session(GAMES["ECGDrug-v0"], "ecg-wm-small", 2, "typical", hours=8.0)


def test_the_parts_of_a_drawing_are_the_drawing(session: Session) -> None:
    """Torch's own networks, cut where the page asks for them: the episode of the simulator, and its ECG."""
    step, cut = folder.networks_of(session)

    def run(name: str, tensors: networks.Named) -> networks.Named:
        network, like = cut[name]
        given = {
            argument: tensors[argument] if isinstance(value, torch.Tensor) else {n: tensors[n] for n in value}
            for argument, value in like.items()
        }
        return network(**given)

    found = equality.played(session, step, run, RULE, ecg_every=2)
    assert found.steps == 4 and found.flags == 0
    assert found.state == found.chart == found.reward == 0.0 and found.ecg_mv < 1e-6


def test_the_step_as_a_file_is_the_step(session: Session, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason='ONNX is written by onnx: pip install "clinenv[play-static]"')
    pytest.importorskip("onnxruntime", reason='ONNX is read by onnxruntime: pip install "clinenv[play-static]"')
    from clinenv.play.static.onnx_files import loaded, write

    step, cut = folder.networks_of(session)
    write(*cut["step"], tmp_path / "step.onnx")
    run = loaded(tmp_path / "step.onnx")
    found = equality.played(session, step, lambda _, tensors: run(tensors), RULE, ecg_every=1000)
    assert found.within and found.steps == 4, found
    assert (tmp_path / "step.onnx").stat().st_size < 1_000_000


def test_a_luck_of_extreme_keys_is_the_same_in_onnx(tmp_path: Path) -> None:
    """Wrapping products, logical shifts of negative numbers, and erfinv far out."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from clinenv.play.static.onnx_files import loaded, write

    class Luck(torch.nn.Module):
        def forward(self, key: torch.Tensor, t: torch.Tensor, u: torch.Tensor) -> networks.Named:
            bits = keys.bits(key, t, "test", (64,))
            return {"bits": bits, "normal": keys.normal(key, t, "test", (64,)), "far": keys.to_normal(u)}

    key = torch.tensor([-(2**63), 2**63 - 1, -1, 0, 123456789, -987654321])
    step = 0.5 / (1 << 23)
    given = {"key": key, "t": torch.arange(6), "u": torch.tensor([step, 1e-4, 0.5, 0.9, 1.0 - step])}
    write(Luck().eval(), given, tmp_path / "luck.onnx")
    found, wanted = loaded(tmp_path / "luck.onnx")(given), Luck()(**given)
    assert torch.equal(found["bits"], wanted["bits"])
    assert torch.allclose(found["normal"], wanted["normal"], atol=1e-5)
    assert torch.allclose(found["far"], wanted["far"], atol=1e-3)


def test_a_patient_comes_back_from_the_bytes(session: Session) -> None:
    state = patients.kept_state(session.branches[0].moments[0]["learned"].running.state)
    content, place = patients.packed(state), 0
    for value in state.values():
        size = value.numel() * value.element_size()
        read = np.frombuffer(content[place : place + size], value.numpy().dtype).reshape(tuple(value.shape))
        assert np.array_equal(read, value.numpy(), equal_nan=value.dtype.is_floating_point)
        place += size
    assert place == len(content)


def test_the_oracle_gave_what_it_gives(session: Session) -> None:
    plans = patients.tried([patients.Admitted(session, {}, {})])[0]
    assert plans[0]["plan"] == "nothing" and len(plans) == 9 and plans[1]["plan"].endswith("mg every 12 h")
    again = Session(GAMES["ECGDrug-v0"], "ecg-wm-small", 2, "typical", hours=8.0)
    reward = sum(again.order(0, step, 0)["oracle"]["reward"] for step in range(4))
    assert plans[0]["reward"] == pytest.approx(reward, abs=1e-3)


def test_what_cannot_be_made_is_said_before_anything_is_written(tmp_path: Path, capsys) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    other = tmp_path / "other.tgz"
    other.write_bytes(b"no package")
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "mine.txt").write_text("mine")
    new = str(tmp_path / "new")
    for arguments, said in (
        (["EHRWard-v0", "--static", new], "ECGDrug-v0"),
        (["ECGDrug-v0", "--static", str(kept)], "new folder"),
        (["ECGDrug-v0", "--static", new, "--onnxruntime-web", str(tmp_path / "none.tgz")], runtime.PACKAGE),
        (["ECGDrug-v0", "--static", new, "--onnxruntime-web", str(other)], "SHA-512"),
        (["ECGDrug-v0", "--static", new, "--world", "somewhere"], "--world"),
    ):
        assert main(["play", *arguments]) == 2
        error = capsys.readouterr().err
        assert said in error and len(error.strip().splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "other.tgz"]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of the folder, given out by Python's own server of files."""
    assert PAGE is not None

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=PAGE))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.mark.skipif(not PAGE, reason="minutes of computing; make play-static runs it")
@pytest.mark.parametrize("width", (375, 1400))
def test_an_episode_to_its_end_by_keyboard(address: str, width: int) -> None:
    """In the browser, offline but for the folder; what it shows is what torch gives."""
    sync_api = pytest.importorskip("playwright.sync_api")
    from tests.play.browser import chromium

    path = chromium()
    if path is None:
        pytest.skip("no Chromium here: make play-static installs one")
    assert PAGE is not None
    size = sum(file.stat().st_size for file in Path(PAGE).rglob("*") if file.is_file())
    assert size < folder.MOST_BYTES
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        scheme = "dark" if width == 375 else "light"
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        said: list[str] = []
        elsewhere: list[str] = []
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
        page.on("request", lambda asked: None if asked.url.startswith(address) else elsewhere.append(asked.url))
        page.goto(address)
        _played(page, width)
        told = page.locator("#outcome").inner_text()
        seen = page.locator("#note").inner_text()
        page.keyboard.press(",")
        page.keyboard.press(",")
        page.keyboard.press("b")
        page.wait_for_selector("body:not(.busy)", timeout=LIMIT_MS)
        page.keyboard.press("g")
        page.wait_for_selector("body:not(.busy)", timeout=LIMIT_MS)
        assert page.text_content("#error") == "" and page.locator("#cards > section").count() == 2
        _picture(page, f"static-{width}-branches")
        browser.close()
    assert "the oracle is not in it" in seen
    assert not said and not [url for url in elsewhere if not url.startswith(("data:", "blob:"))], (said, elsewhere)

    session = Session(GAMES["ECGDrug-v0"], "ecg-wm-small", 1, "typical")
    moments = [session.order(0, step, 3)["learned"] for step in range(24)]
    total = f"{sum(moment['reward'] for moment in moments):.2f}".replace("-", "−")
    assert f"promised {total} points" in told, (total, told)


def _played(page, width: int) -> None:
    page.wait_for_selector("#begin", timeout=LIMIT_MS)
    page.wait_for_selector("body:not(.busy)", timeout=LIMIT_MS)
    page.keyboard.press("Enter")
    page.wait_for_selector("#give", timeout=LIMIT_MS)
    page.wait_for_selector("body:not(.busy)", timeout=LIMIT_MS)
    for key in ("o", "ArrowDown", "ArrowDown", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    page.wait_for_selector("body:not(.busy)", timeout=LIMIT_MS)
    steps = 1
    while "is over" not in (page.text_content("#status") or "") and steps <= 24:
        page.keyboard.press("g")
        page.wait_for_selector("body:not(.busy)", timeout=LIMIT_MS)
        steps += 1
    assert "is over" in (page.text_content("#status") or ""), page.text_content("#error")
    assert steps == 24
    wide, window = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert wide <= window, f"the page is {wide} px wide in a window of {window}"
    page.wait_for_selector("svg.paper", timeout=LIMIT_MS)
    _picture(page, f"static-{width}-end")


def _picture(page, name: str) -> None:
    place = os.environ.get("CLINENV_SCREENSHOTS")
    if place:
        Path(place).mkdir(parents=True, exist_ok=True)
        page.wait_for_selector("text=is drawn", state="detached", timeout=LIMIT_MS)
        page.screenshot(path=str(Path(place) / f"{name}.png"), full_page=True)


def test_the_scripts_say_the_same_as_the_served_ones() -> None:
    """Both forms of `api.js` export the same names."""
    served, own = (
        set(re.findall(r"^export (?:async )?(?:const|function) (\w+)", (place / "api.js").read_text(), re.M))
        for place in (folder.ASSETS, folder.OWN_ASSETS)
    )
    assert served == own == {"setting", "begin", "look", "order", "fork", "close", "ecg"}


def test_the_page_told_of_in_the_folder_is_json() -> None:
    if not PAGE:
        pytest.skip("make play-static makes it")
    told = json.loads((Path(PAGE) / "assets" / "world" / "world.json").read_text())
    assert told["patients"][0]["plans"][0]["plan"] == "nothing" and told["about"]["steps"] == 24
