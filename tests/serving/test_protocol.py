"""OpenEnv's protocol by every id: what is answered is what `gymnasium.make` gives, and what is hidden stays hidden."""

from __future__ import annotations

import json

import gymnasium
import jsonschema
import numpy as np
import pytest

from clinenv.registration import ENVIRONMENTS
from clinenv.serving.course import Served
from clinenv.serving.server import running
from tests.serving.asking import WAIT_S, Asking, say
from tests.serving.conftest import ARGUMENTS

IDS = [row["id"] for row in ENVIRONMENTS]
STEPS = 3


def plain(action):
    return action.tolist() if isinstance(action, np.ndarray) else int(action)


def same(observation, shown, info) -> None:
    """What was sent is the environment's own, to the last bit."""
    assert np.array_equal(np.array(observation["values"], np.float32), shown)
    assert observation["hours"] == info["hours"] and observation["cost"] == info["cost"]
    mask = info.get("action_mask")
    assert observation["action_mask"] == (None if mask is None else mask.tolist())


@pytest.mark.parametrize("env_id", IDS)
def test_a_course_by_url_is_the_environments_own(asking: Asking, env_id: str) -> None:
    env = gymnasium.make(env_id, **ARGUMENTS.get(env_id, {}))
    env.action_space.seed(1)
    shown, info = env.reset(seed=7)
    schemas = asking.get(f"/{env_id}/schema")
    begun = asking.post(f"/{env_id}/reset", {"seed": 7})
    same(begun["observation"], shown, info)
    jsonschema.validate(begun["observation"], schemas["reset_observation"])
    assert begun["reward"] is None and begun["done"] is False and begun["observation"]["how_to_act"]
    described = env.unwrapped.describe(shown)
    assert begun["observation"]["chart"] == {n: None if np.isnan(v) else v for n, v in described.items()}
    session, total, step = begun["metadata"]["session_id"], 0.0, 0
    for _ in range(STEPS):
        action = env.action_space.sample()
        shown, reward, terminated, truncated, info = env.step(action)
        sent = {"value": plain(action)}
        jsonschema.validate(sent, schemas["action"])
        answer = asking.post(f"/{env_id}/step", {"action": sent, "session_id": session})
        same(answer["observation"], shown, info)
        jsonschema.validate(answer["observation"], schemas["observation"])
        assert answer["reward"] == reward and answer["done"] is (terminated or truncated)
        terms = {name.removeprefix("reward_"): v for name, v in info.items() if name.startswith("reward_")}
        assert answer["observation"]["reward_parts"] == terms
        refused = [(said["order"], said["why"]) for said in answer["observation"]["refused"]]
        assert refused == env.unwrapped.refusals()
        total, step = total + reward, step + 1
        if answer["done"]:
            break
    state = asking.get(f"/{env_id}/state?session_id={session}")
    jsonschema.validate(state, schemas["state"])
    assert state["step_count"] == step and state["seed"] == 7 and state["env_id"] == env_id
    assert state["return"] == pytest.approx(total) and state["hours"] == info["hours"]
    if state["done"]:
        assert "over" in asking.refused(f"/{env_id}/step", {"action": sent, "session_id": session}, 409)
    assert asking.post(f"/{env_id}/close", {"session_id": session}) == {"closed": True}
    assert "unknown" in asking.raw("GET", f"/{env_id}/state?session_id={session}")[1]["detail"]


def test_what_is_served_is_listed(asking: Asking) -> None:
    assert [row["id"] for row in asking.get("/envs")] == asking.get("/list_environments") == IDS
    for row in asking.get("/envs"):
        told = asking.get(f"{row['path']}/metadata")
        assert told["name"] == row["id"] and "not for clinical use" in told["description"]
        assert "## Action Space" in told["readme_content"] or "Action Space" in told["readme_content"]
    assert asking.get("/metadata")["name"] == IDS[0]  # the first answers at the top
    paths = asking.get("/openapi.json")["paths"]
    assert {"/reset", "/step", "/state", "/schema", "/health", "/metadata", "/mcp"} <= set(paths)
    assert asking.post("/mcp", {})["jsonrpc"] == "2.0"


def test_one_connection_is_one_session(asking: Asking) -> None:
    with asking.live("/EHRWard-v0/ws") as socket:
        begun = say(socket, {"type": "reset", "data": {"seed": 5, "episode_id": "mine", "observation": "text"}})
        assert begun["type"] == "observation" and "chart" not in begun["data"]["observation"]
        assert begun["data"]["metadata"]["episode_id"] == "mine"
        assert begun["data"]["observation"]["text"].startswith("Hour 0 of the stay.")
        told = say(socket, {"type": "step", "data": {"text": "lactate, saline_ml 1000 mL", "metadata": {}}})["data"]
        assert "Given in the last 4 h: saline 1000 mL." in told["observation"]["text"]
        state = say(socket, {"type": "state"})
        assert state["type"] == "state" and state["data"]["step_count"] == 1 and state["data"]["episode_id"] == "mine"
        for wrong, code in (
            ("{", "INVALID_JSON"),
            (b"\x80\x03", "INVALID_JSON"),
            ({"type": "pickle"}, "UNKNOWN_TYPE"),
            ({"type": "step", "data": {"text": "blah"}}, "VALIDATION_ERROR"),
            ({"type": "step", "data": {}, "more": 1}, "VALIDATION_ERROR"),
        ):
            error = say(socket, wrong)
            assert error["type"] == "error" and error["data"]["code"] == code, error
        assert say(socket, {"type": "mcp", "data": {}})["data"]["jsonrpc"] == "2.0"
        assert say(socket, {"type": "state"})["data"]["step_count"] == 1  # nothing of it was a step
        socket.send(json.dumps({"type": "close"}))


def test_the_notes_are_the_environments(asking: Asking) -> None:
    env = gymnasium.make("EHRWard-v0", observation="text")
    note, _ = env.reset(seed=3)
    begun = asking.post("/EHRWard-v0/reset", {"seed": 3})
    assert begun["observation"]["text"] == note
    switches = [int(i % 5 == 0) for i in range(69)]
    note, *_ = env.step(switches)
    sent = {"action": {"value": switches}, "session_id": begun["metadata"]["session_id"]}
    assert asking.post("/EHRWard-v0/step", sent)["observation"]["text"].startswith(note)


def test_who_comes_next_is_the_sequences(asking: Asking) -> None:
    """A reset without a seed: the next patient of the same sequence; a session without one draws its own."""
    env = gymnasium.make("ECGDrug-v0")
    env.reset(seed=9)
    begun = asking.post("/ECGDrug-v0/reset", {"seed": 9})
    session = begun["metadata"]["session_id"]
    again = asking.post("/ECGDrug-v0/reset", {"session_id": session, "options": {"age_years": 70}})
    same(again["observation"], *env.reset(options={"age_years": 70}))
    assert again["observation"]["chart"]["age_years"] == 70
    assert again["metadata"]["session_id"] == session and again["metadata"]["seed"] == 9
    drawn = [asking.post("/ECGDrug-v0/reset", {})["metadata"]["seed"] for _ in range(2)]
    assert drawn[0] != drawn[1]


def test_two_sessions_are_apart(asking: Asking) -> None:
    alone = asking.post("/ECGDrug-v0/reset", {"seed": 2})
    step = {"action": {"orders": "dofetilide 0.5 mg"}}
    wanted = [asking.post("/ECGDrug-v0/step", {**step, "session_id": alone["metadata"]["session_id"]}) for _ in "ab"]
    one, other = (asking.post("/ECGDrug-v0/reset", {"seed": 2})["metadata"]["session_id"] for _ in "ab")
    assert one != other
    for answer in wanted:  # turn by turn, the other with other orders
        found = asking.post("/ECGDrug-v0/step", {**step, "session_id": one})
        asking.post("/ECGDrug-v0/step", {"action": {"value": 0}, "session_id": other})
        assert found["observation"]["values"] == answer["observation"]["values"]
    asking.post("/close", {"session_id": one})
    assert asking.get(f"/state?session_id={other}")["step_count"] == 2
    assert "unknown" in asking.refused("/EHRWard-v0/step", {**step, "session_id": other}, 404)  # of another id


def test_what_the_world_hides_is_never_sent(asking: Asking) -> None:
    hidden = ("true_transitions", "explained", "found_transitions", "latent_distance")
    begun = asking.post("/ECGExplain-v0/reset", {"seed": 1})
    sent = {"action": {"value": 0}, "session_id": begun["metadata"]["session_id"]}
    answer = asking.post("/ECGExplain-v0/step", sent)
    assert answer["done"] and not [name for name in hidden if name in json.dumps([begun, answer])]
    oracle = Served("ECGDrug-v0", {"world": "oracle"})
    env = oracle.make()
    env.reset(seed=4)
    secrets = set(env.unwrapped.world.truth(env.unwrapped.state)) - set(oracle.layout.names)
    with running([oracle]) as url:
        begun = Asking(url).post("/reset", {"seed": 4})
        sent = {"action": {"value": 4}, "session_id": begun["metadata"]["session_id"]}
        answer = Asking(url).post("/step", sent)
        assert answer["observation"]["support"] is None  # an oracle's reads the hidden state
        written = json.dumps([begun, answer, Asking(url).get(f"/state?session_id={sent['session_id']}")])
        assert secrets and not [name for name in secrets if f'"{name}"' in written]


def test_openenvs_own_client(asking: Asking) -> None:
    client = pytest.importorskip("openenv.core.generic_client")
    for path, action in (("", {"value": 3}), ("/EHRWard-v0", {"text": "lactate, saline"})):
        base = f"http://{asking.address}{path}"
        with client.GenericEnvClient(base_url=base, message_timeout_s=WAIT_S).sync() as env:
            begun = env.reset(seed=6)
            assert begun.done is False and begun.observation["hours"] == 0
            told = env.step(action)
            assert isinstance(told.reward, float) and told.observation["hours"] > 0
            assert env.state()["step_count"] == 1
            with pytest.raises(RuntimeError, match="exactly one of"):
                env.step({})
    validate = pytest.importorskip("openenv.cli._validation").validate_running_environment
    report = validate(f"http://{asking.address}", timeout_s=WAIT_S)
    assert report["passed"], report["summary"]
