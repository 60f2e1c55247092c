"""Sessions without a server: bounds, the other ids, worlds that fit."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from clinenv.admission import admission_factors
from clinenv.play.games import GAMES, learned_worlds
from clinenv.play.session import PlayError, Session
from clinenv.play.sessions import Sessions


def _kept(sessions: Sessions, name: str) -> bool:
    try:
        with sessions.use(name):
            return True
    except PlayError:
        return False


def test_the_longest_unused_session_goes_first() -> None:
    now = [0.0]
    sessions = Sessions(most=2, idle_seconds=60.0, clock=lambda: now[0])
    made: Any = SimpleNamespace()
    first, second = sessions.add(lambda: made)[0], sessions.add(lambda: made)[0]
    assert _kept(sessions, first)  # used again, so the second is now the longest unused
    third = sessions.add(lambda: made)[0]
    assert (_kept(sessions, first), _kept(sessions, second), _kept(sessions, third)) == (True, False, True)
    now[0] = 61.0
    assert not _kept(sessions, first) and len(sessions) == 0


def test_a_session_that_cannot_be_made_costs_no_place() -> None:
    sessions = Sessions(most=1)
    name = sessions.add(lambda: SimpleNamespace())[0]  # type: ignore[arg-type, return-value]

    def fail() -> Session:
        raise PlayError("no such patient")

    with pytest.raises(PlayError):
        sessions.add(fail)
    assert _kept(sessions, name)


def test_worlds_fit_their_id() -> None:
    assert learned_worlds("ECGDrug-v0") == ("ecg-wm-small",)
    assert learned_worlds("ECGProgression-v0") == ("cardiac-jepa-small",)
    assert set(learned_worlds("EHRWard-v0")) >= {"ehr-ward-small", "ehr-icu-small", "ehr-icu-hourly-small"}


def test_the_ward_shows_what_is_charted_and_says_what_was_refused() -> None:
    session = Session(GAMES["EHRWard-v0"], "ehr-ward-small", 1, "ward", hours=8.0)
    names = list(GAMES["EHRWard-v0"].task().actions.names)
    ordered = [float(name in ("metoprolol_mg", "norepinephrine_ug_kg_min", "inquire_potassium")) for name in names]
    first = session.branches[0].moments[0]["oracle"].shown
    assert first["values"]["potassium_mmol_l"] is None and first["values"]["heart_rate_bpm"] > 0
    moment = session.order(0, 0, ordered)
    for role in ("learned", "oracle"):
        assert ["Metoprolol, intravenous", "it is ordered beside a vasopressor"] in moment[role]["refused"]
        assert moment[role]["values"]["given_norepinephrine_ug_kg_min"] == pytest.approx(0.1)
        assert moment[role]["values"]["given_metoprolol_mg"] is None
    with pytest.raises(ValueError, match="switch"):
        session.order(0, 1, [2.0] * len(names))
    assert session.order(0, 1, [0.0] * len(names))["learned"]["end"] == "truncated"


def test_the_learned_ward_is_told_the_admission_chart() -> None:
    session = Session(GAMES["EHRWard-v0"], "oracle", 3, "sepsis", hours=4.0)
    learned, oracle = (session.branches[0].moments[0][role].running.chart for role in ("learned", "oracle"))
    told = admission_factors(oracle, session.episodes["learned"].simulator.world)
    assert {"age_years", "sex_female", "complaint"} <= set(told)
    for name in told:
        assert torch.allclose(learned[name], oracle[name]), name
    assert session.told()["seen"] == "oracle"


def test_ten_years_in_the_clinic_end_with_the_truth() -> None:
    game = GAMES["ECGProgression-v0"]
    session = Session(game, "cardiac-jepa-small", 2, "clinic")
    yearly = [0] * 14 + [3]
    moment: dict[str, Any] = {}
    for visit in range(10):
        moment = session.order(0, visit, yearly)
        if moment["learned"]["end"] is not None:
            break
        assert moment["learned"]["truth"] == [] and moment["learned"]["given"] == ["Next visit in 12 months"]
    assert moment["learned"]["end"] == "terminated"
    assert [what for what, _ in moment["learned"]["truth"]] == ["End", "Conditions at the end"]
    svg = session.ecg(0, 1, "oracle")
    assert svg is not None and svg.startswith("<svg") and session.ecg(0, 1, "learned") is None
