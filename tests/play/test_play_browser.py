"""Episodes played to their end in a real browser, by keyboard alone, at the width of a telephone and of a screen.

Minutes of computing, so they run by `make test-play`, which installs a browser and sets CLINENV_BROWSER_TESTS; pictures
of every page are then left in the folder that CLINENV_SCREENSHOTS names.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason='the page needs starlette: pip install "clinenv[play]"')
pytest.importorskip("playwright", reason='a browser is driven by playwright: pip install "clinenv[browser]"')
if not os.environ.get("CLINENV_BROWSER_TESTS"):
    pytest.skip("minutes of computing; make test-play runs them", allow_module_level=True)

from playwright.sync_api import Browser, Page, sync_playwright  # noqa: E402

from clinenv.play.games import GAMES  # noqa: E402
from clinenv.play.server import application  # noqa: E402
from tests.play.browser import chromium, serving  # noqa: E402

WIDTHS = (375, 1400)  # px
LIMIT_MS = 120_000
# keys that choose some orders, and how often the episode has to be stepped at most
ORDERS = {"ECGDrug-v0": ("ArrowDown", "ArrowDown", "ArrowDown"), "EHRWard-v0": ("Space",), "ECGProgression-v0": ()}
MOST_STEPS = {"ECGDrug-v0": 24, "EHRWard-v0": 21, "ECGProgression-v0": 21}
TARGET = 'input[type="radio"]:checked, input[type="checkbox"], select, button, a, summary'


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = chromium()
    if path is None:
        pytest.skip("no Chromium here: make test-play installs one")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])


@pytest.fixture(scope="module")
def addresses() -> Iterator[dict[str, str]]:
    with (
        serving(application(GAMES["ECGDrug-v0"])) as drug,
        serving(application(GAMES["EHRWard-v0"])) as ward,
        serving(application(GAMES["ECGProgression-v0"])) as clinic,
    ):
        yield {"ECGDrug-v0": drug, "EHRWard-v0": ward, "ECGProgression-v0": clinic}


def _turn(page: Page) -> None:
    """Wait until what was asked for has come."""
    page.wait_for_selector("body:not(.busy)", timeout=LIMIT_MS)


def _press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def _fits(page: Page) -> None:
    wide, window = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert wide <= window, f"the page is {wide} px wide in a window of {window}"


def _picture(page: Page, name: str) -> None:
    folder = os.environ.get("CLINENV_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.wait_for_selector("text=is drawn", state="detached", timeout=LIMIT_MS)
        page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("env_id", list(ORDERS))
def test_an_episode_to_its_end_by_keyboard(browser: Browser, addresses: dict, env_id: str, width: int) -> None:
    scheme = "dark" if width == WIDTHS[0] else "light"
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    said: list[str] = []
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.goto(addresses[env_id])
    page.wait_for_selector("#begin", timeout=LIMIT_MS)
    _turn(page)
    assert page.evaluate("document.activeElement.id") == "seed"
    if (
        env_id == "EHRWard-v0"
    ):  # a quarter of the longest stay: three tabs on is its length, the last choice the shortest
        _press(page, "Tab", "Tab", "Tab", "End", "Enter")
        page.focus("#seed")
    _press(page, "Enter")
    page.wait_for_selector("#give", timeout=LIMIT_MS)
    _turn(page)
    _press(page, "o", *ORDERS[env_id], "Enter")
    _turn(page)
    assert page.text_content("#error") == ""
    steps = 1
    while "is over" not in (page.text_content("#status") or "") and steps <= MOST_STEPS[env_id]:
        _press(page, "g")
        _turn(page)
        steps += 1
    assert "is over" in (page.text_content("#status") or ""), page.text_content("#error")
    assert "the learned world promised" in (page.text_content("#outcome") or "")
    _fits(page)
    _picture(page, f"{env_id}-{width}-end")

    _press(page, "g")  # over: one sentence that says what to do
    _turn(page)
    assert "branch from an earlier step" in (page.text_content("#error") or "")
    _press(page, ",", ",", "b")
    _turn(page)
    assert page.locator("#cards > section").count() == 2
    _press(page, "g")
    _turn(page)
    assert page.text_content("#error") == ""
    _fits(page)
    _picture(page, f"{env_id}-{width}-branches")
    assert not [line for line in said if "400" not in line], said  # the refused order is the one error that there was
    page.close()


def test_tab_goes_through_the_page_and_out_of_it(browser: Browser, addresses: dict) -> None:
    """No trap, and every place that can be reached is seen to have the focus."""
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.goto(addresses["ECGDrug-v0"])
    page.wait_for_selector("#begin", timeout=LIMIT_MS)
    _turn(page)
    _press(page, "Enter")
    page.wait_for_selector("#give", timeout=LIMIT_MS)
    _turn(page)
    page.focus(".skip")
    reached: list[str] = []
    for _ in range(60):
        _press(page, "Tab")
        where, outline, named = page.evaluate(
            """() => { const e = document.activeElement; return [e.id || e.tagName + e.textContent.slice(0, 20),
            getComputedStyle(e).outlineStyle,
            e === document.body || Boolean(e.labels?.length || e.textContent.trim() || e.ariaLabel)] }"""
        )
        assert named, f"{where} has no name"
        if where in reached or where.startswith("BODY"):
            break
        assert outline != "none", f"{where} does not show that it has the focus"
        reached.append(where)
    assert {"seed", "cohort", "world", "give", "keep", "branch", "fork"} <= set(reached), reached
    page.close()


def test_a_hostile_name_stays_text(browser: Browser, addresses: dict) -> None:
    """A cohort, a world and a fact that are markup are shown as letters."""
    bad = "<img src=x onerror=window.hurt=1>"

    def hostile(route) -> None:
        told = route.fetch().json()
        told["cohorts"] = {"typical": bad}
        told["worlds"] = ["ecg-wm-small", bad]
        told["rows"][0]["label"] = bad
        route.fulfill(json=told)

    page = browser.new_page()
    page.route("**/api/setting", hostile)
    page.goto(addresses["ECGDrug-v0"])
    page.wait_for_selector("#begin", timeout=LIMIT_MS)
    _turn(page)
    _press(page, "Enter")
    page.wait_for_selector("#give", timeout=LIMIT_MS)
    _turn(page)
    assert bad in page.inner_text("#cards") and bad in (page.text_content("#cohort") or "")
    assert page.locator("img").count() == 0 and page.evaluate("window.hurt === undefined")
    page.close()


def test_without_a_server_the_page_says_what_to_do(browser: Browser, addresses: dict) -> None:
    page = browser.new_page()
    page.goto(addresses["ECGDrug-v0"])
    page.wait_for_selector("#begin", timeout=LIMIT_MS)
    _turn(page)
    page.route("**/api/**", lambda route: route.abort())
    _press(page, "Enter")
    _turn(page)
    assert "start clinenv play again" in (page.text_content("#error") or "")
    page.close()
