"""One game's application for all tests of a file: worlds load once."""

from __future__ import annotations

import pytest

pytest.importorskip("starlette", reason='the page needs starlette: pip install "clinenv[play]"')

from starlette.testclient import TestClient  # noqa: E402

from clinenv.play.games import GAMES  # noqa: E402
from clinenv.play.server import application  # noqa: E402


@pytest.fixture(scope="session")
def drug() -> TestClient:
    return TestClient(application(GAMES["ECGDrug-v0"]), base_url="http://127.0.0.1:8765")


@pytest.fixture(scope="session")
def patient(drug: TestClient) -> dict:
    """Patient 1 with two steps behind her: dofetilide, then nothing; a branch at step 1 that got nothing at all."""
    told = drug.post("/api/sessions", json={"seed": 1, "cohort": "typical", "hours": 8}).json()
    root = f"/api/sessions/{told['session']}"
    for step, action in enumerate((4, 0)):
        assert drug.post(f"{root}/orders", json={"branch": 0, "step": step, "action": action}).status_code == 200
    assert drug.post(f"{root}/branches", json={"branch": 0, "step": 0}).json()["branch"]["id"] == 1
    for step in range(2):
        assert drug.post(f"{root}/orders", json={"branch": 1, "step": step, "action": 0}).status_code == 200
    return drug.get(root).json()
