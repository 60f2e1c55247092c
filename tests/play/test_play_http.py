"""The page's server without a browser: what it tells, what it refuses, whom it lets ask."""

from __future__ import annotations

import json
import math
from html.parser import HTMLParser

import gymnasium as gym
import pytest
from starlette.testclient import TestClient

import clinenv  # noqa: F401  (registers the ids)
from clinenv.commands.main import main
from clinenv.play.games import GAMES, learned_worlds
from clinenv.play.page import ASSETS, index
from clinenv.play.requests import MOST_BYTES
from clinenv.play.server import application
from clinenv.play.session import MOST_BRANCHES
from clinenv.registration import WEIGHTS_SHA256


def _root(patient: dict) -> str:
    return f"/api/sessions/{patient['session']}"


def _moments(patient: dict, branch: int, role: str) -> list[dict]:
    return [moment[role] for moment in patient["branches"][branch]["moments"]]


def test_the_session_says_which_worlds_and_weights(patient: dict) -> None:
    learned, oracle = patient["worlds"]["learned"], patient["worlds"]["oracle"]
    assert learned["name"] == "ecg-wm-small" and learned["sha256"] == WEIGHTS_SHA256["ecg-wm-small"]
    assert oracle["name"] == "oracle" and oracle["sha256"] is None
    assert patient["seen"] == "learned"


def test_the_oracle_is_the_environment_of_that_seed(patient: dict) -> None:
    env = gym.make("ECGDrug-v0", world="oracle", cohort="typical")
    env.reset(seed=1)
    told = _moments(patient, 0, "oracle")
    for action, moment in zip((4, 0), told[1:], strict=True):
        _, reward, _, _, _ = env.step(action)
        assert moment["reward"] == pytest.approx(reward, rel=1e-5)
    qtcf = float(env.unwrapped.chart["qtcf_ms"][0])
    assert told[-1]["values"]["qtcf_ms"] == pytest.approx(qtcf, rel=1e-5)
    assert told[-1]["time"] == 4.0 and told[1]["given"] == ["dofetilide 0.5 mg"]


def test_both_worlds_have_the_same_patient(patient: dict) -> None:
    learned, oracle = _moments(patient, 0, "learned")[0], _moments(patient, 0, "oracle")[0]
    assert learned["values"]["qtcf_ms"] == pytest.approx(oracle["values"]["qtcf_ms"], abs=2.0)
    assert learned["values"]["total_dofetilide"] == 0.0
    assert learned["spread"]["qtcf_ms"] > 0


def test_a_branch_shares_the_past_and_only_the_order_differs(patient: dict) -> None:
    first, second = patient["branches"]
    assert second["parent"] == {"branch": 0, "step": 0}
    assert first["moments"][0] == second["moments"][0]
    for role in ("learned", "oracle"):
        dosed, spared = _moments(patient, 0, role)[-1], _moments(patient, 1, role)[-1]
        assert dosed["values"]["qtcf_ms"] > spared["values"]["qtcf_ms"] + 5.0  # ms; dofetilide lengthens QT
        assert spared["values"]["total_dofetilide"] == 0.0 and dosed["values"]["total_dofetilide"] == 0.5


def test_equal_orders_on_a_branch_give_the_same_course(drug: TestClient, patient: dict) -> None:
    forked = drug.post(f"{_root(patient)}/branches", json={"branch": 0, "step": 1}).json()["branch"]
    answer = drug.post(f"{_root(patient)}/orders", json={"branch": forked["id"], "step": 1, "action": 0})
    assert answer.json()["moment"] == patient["branches"][0]["moments"][2]


def test_the_course_ends_and_says_so(drug: TestClient, patient: dict) -> None:
    for step in (2, 3):
        answer = drug.post(f"{_root(patient)}/orders", json={"branch": 0, "step": step, "action": 0}).json()
    assert answer["moment"]["learned"]["end"] == "truncated"  # 8 h in steps of 2 h
    for path, body in (("orders", {"branch": 0, "step": 4, "action": 0}), ("branches", {"branch": 0, "step": 4})):
        refused = drug.post(f"{_root(patient)}/{path}", json=body)
        assert refused.status_code == 400 and "over" in refused.json()["error"]


def test_the_ecg_is_an_svg_of_twelve_leads(drug: TestClient, patient: dict) -> None:
    for role in ("learned", "oracle"):
        svg = drug.get(f"{_root(patient)}/ecg/0/1/{role}").text
        assert (
            svg.startswith("<svg") and "25 mm/s" in svg and all(f">{lead}</text>" in svg for lead in ("I", "aVR", "V6"))
        )
    assert drug.get(f"{_root(patient)}/ecg/0/1/nobody").status_code == 400
    assert drug.get(f"{_root(patient)}/ecg/0/99/oracle").status_code == 400


BAD_PATIENTS = [
    ({"seed": -1}, "seed"), ({"seed": "1"}, "seed"), ({"seed": 1.5}, "seed"), ({"seed": True}, "seed"),
    ({"seed": 2**64}, "seed"), ({"cohort": "<b>x</b>"}, "typical"), ({"cohort": ["typical"]}, "typical"),
    ({"world": "ward-oracle"}, "ecg-wm-small"), ({"world": "/etc"}, "ecg-wm-small"), ({"hours": 0}, "48"),
    ({"hours": 1e9}, "48"), ({"hours": "48"}, "48"), ({"hours": []}, "48"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "named"), BAD_PATIENTS)
def test_a_wrong_patient_is_one_sentence_with_the_choices(drug: TestClient, body: dict, named: str) -> None:
    answer = drug.post("/api/sessions", json=body)
    assert answer.status_code == 400 and named in answer.json()["error"] and "\n" not in answer.json()["error"]


@pytest.mark.parametrize("action", [9, -1, 1.5, "0", None, [0], {}, True, 10**400])
def test_a_wrong_action_changes_nothing(drug: TestClient, patient: dict, action: object) -> None:
    before = drug.get(_root(patient)).json()
    body = json.dumps({"branch": 1, "step": 2, "action": action})
    answer = drug.post(f"{_root(patient)}/orders", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400 and answer.json()["error"]
    assert drug.get(_root(patient)).json() == before


def test_a_page_that_is_behind_is_told_so(drug: TestClient, patient: dict) -> None:
    wrong = [({"branch": 1, "step": 0}, "reload"), ({"branch": 77, "step": 0}, "branches are 0 to"),
             ({"branch": 1, "step": 4000}, "reload"), ({"step": 0}, "branch")]  # fmt: skip
    for body, named in wrong:
        answer = drug.post(f"{_root(patient)}/orders", json={"action": 0, **body})
        assert answer.status_code == 400 and named in answer.json()["error"], body


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff", b'{"seed": NaN}', b"[" * 60_000, b" " * (MOST_BYTES + 1)])
def test_garbage_is_refused(drug: TestClient, content: bytes) -> None:
    answer = drug.post("/api/sessions", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 400 and "request" in answer.json()["error"]


def test_other_sites_cannot_ask(drug: TestClient, patient: dict) -> None:
    own = {"origin": "http://127.0.0.1:8765"}
    assert drug.get("/", headers={"host": "attacker.example"}).status_code == 400
    for headers in ({"origin": "http://attacker.example"}, {"origin": "null"}):
        assert drug.post("/api/sessions", json={"seed": 1}, headers=headers).status_code == 400
        assert drug.delete(_root(patient), headers=headers).status_code == 400
    assert drug.post("/api/sessions", data={"seed": "1"}, headers=own).status_code == 400  # a form needs no leave
    assert drug.get(_root(patient), headers=own).status_code == 200
    policy = drug.get("/").headers["content-security-policy"]
    assert policy.startswith("default-src 'self'") and "unsafe" not in policy


def test_an_unknown_session_says_what_to_do(drug: TestClient) -> None:
    answer = drug.get("/api/sessions/../../etc/passwd")
    assert answer.status_code == 404
    answer = drug.get("/api/sessions/none")
    assert answer.status_code == 400 and "new patient" in answer.json()["error"]


def test_branches_are_bounded(drug: TestClient) -> None:
    told = drug.post("/api/sessions", json={"seed": 2, "hours": 2}).json()
    answers = [drug.post(f"{_root(told)}/branches", json={"branch": 0, "step": 0}) for _ in range(MOST_BRANCHES)]
    assert [answer.status_code for answer in answers] == [200] * (MOST_BRANCHES - 1) + [400]
    assert drug.delete(_root(told)).status_code == 200 and drug.get(_root(told)).status_code == 400


class _Linked(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "href")]


@pytest.mark.parametrize("game", GAMES.values(), ids=list(GAMES))
def test_the_page_needs_nothing_from_elsewhere(game) -> None:
    linked = _Linked()
    linked.feed(index(game))
    assert all(link.startswith(("/assets/", "#", "data:,")) for link in linked.found), linked.found
    for asset in ASSETS.iterdir():
        text = asset.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text and "https://" not in text, asset.name
        assert "innerHTML" not in text and "eval(" not in text, asset.name


@pytest.mark.parametrize("game", GAMES.values(), ids=list(GAMES))
def test_the_setting_is_strict_json_and_whole(game) -> None:
    client = TestClient(application(game), base_url="http://127.0.0.1")
    told = client.get("/api/setting").json()
    json.dumps(told, allow_nan=False)
    keys = [row["key"] for row in told["rows"]]
    assert len(set(keys)) == len(keys) and set(told["trend"]) <= set(keys)
    assert told["worlds"] == [*learned_worlds(game.id), "oracle"]
    actions = game.task().actions
    entries = getattr(actions, "entries", None) or actions.names
    assert len(told["controls"]["entries"]) == len(entries)
    assert all(math.isfinite(row["least_span"]) and row["label"] for row in told["rows"])


@pytest.mark.parametrize(
    ("argv", "named"),
    [(["ECGExplain-v0"], "ECGDrug-v0"), (["ECGDrug-v0", "--world", "nowhere"], "nowhere"),
     (["ECGDrug-v0", "--host", "203.0.113.7"], "203.0.113.7")],
)  # fmt: skip
def test_the_command_refuses_with_the_remedy(argv: list[str], named: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["play", *argv]) == 2
    said = capsys.readouterr().err
    assert said.startswith("clinenv: error:") and named in said and said.count("\n") == 1
