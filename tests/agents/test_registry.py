"""The table of agents: every id has what must be beaten, every builder is there, and nobody is ranked out of class."""

from __future__ import annotations

import pytest

from agents import registry
from agents.board.stage import HORIZONS, Stage
from agents.making import Built, Making
from agents.registry import AGENTS, Entry, agents_for, build, entry, find
from clinenv.registration import ENVIRONMENTS


def test_every_id_has_chance_nothing_constants_a_rule_and_a_reference() -> None:
    assert set(registry.EVERY_ID) == {row["id"] for row in ENVIRONMENTS} == set(HORIZONS)
    for env_id in registry.EVERY_ID:
        found = {e.name: e for e in agents_for(env_id)}
        assert {"random", "nothing", "best constant", "best constant of the oracle"} <= set(found), env_id
        assert any(e.kind == "rule" for e in found.values()), env_id
        assert any(e.kind in ("policy", "planner") and e.made_in == "learned" for e in found.values()), env_id
        assert found["random"].seeds >= 3 and found["best constant of the oracle"].kind == "reference"
    with pytest.raises(ValueError, match="no agent is for 'CartPole-v1'"):
        agents_for("CartPole-v1")


def test_names_are_unique_builders_are_there_and_sources_are_told() -> None:
    assert len({e.name for e in AGENTS}) == len(AGENTS)
    for e in AGENTS:
        assert callable(find(e.build)) and e.source.strip(), e.name
        assert e.seeds >= 3 or e.kind not in ("policy",), f"{e.name} is trained: judge three"
    assert entry("PPO").kind == "policy"
    with pytest.raises(ValueError, match="no agent 'nobody'"):
        entry("nobody")


def test_what_is_made_in_the_oracle_is_no_rival() -> None:
    with pytest.raises(ValueError, match="kind is reference"):
        Entry("sly", ("ECGDrug-v0",), "m:f", "planner", "here", made_in="oracle")
    with pytest.raises(ValueError, match="kind is reference"):
        Entry("sly", ("ECGDrug-v0",), "m:f", "planner", "here", owns_state=True)
    for wrong in ({"kind": "champion"}, {"made_in": "heaven"}, {"ids": ()}, {"seeds": 0}):
        given = {"name": "x", "ids": ("ECGDrug-v0",), "build": "m:f", "kind": "rule", "source": "s", **wrong}
        with pytest.raises(ValueError, match="'x'"):
            Entry(**given)


def test_a_builder_gives_an_agent_or_says_more_of_it() -> None:
    making = Making("ECGDrug-v0", Stage("ECGDrug-v0", 24).learned, "ecg-wm-small", 24)
    plain, told = build(entry("nothing"), making), build(entry("random"), making)
    assert isinstance(plain, Built) and plain.settings == {} and told.settings == {"seed": 0}
    with pytest.raises(ValueError, match="is for"):
        build(entry("guideline rule"), making)
    for address, reason in (("nowhere", "no address"), ("no.such:f", "cannot be loaded"), ("math:pi", "no function")):
        with pytest.raises(ValueError, match=reason):
            find(address)
