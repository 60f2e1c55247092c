"""From cells to a page: resumed as it was, intervals over seeds and patients, nothing judged twice, nothing hidden."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from agents.board.board import constants_tried, open_board
from agents.board.cell import Cell, Rules, read_cell
from agents.board.crossed import crossed_cvar, crossed_mean, crossed_ratio
from agents.board.page import board_page
from agents.board.run import SPREADS, run_groups
from agents.board.table import as_markdown, figure, rows_of
from agents.registry import Entry, entry
from benchmarks import leaderboard
from benchmarks.common.results import provenance, read_csv

SALT = "ab" * 16
RULES = Rules("", 6, 3, 10_000.0, quick=True)
AGENTS = [entry("nothing"), entry("dofetilide label rule"), entry("random")]
DRUG = "ECGDrug-v0"


def broken(making):
    """A builder that fails under its second seed, or always."""
    if making.seed:
        raise RuntimeError("no luck")
    return entry_agent(making)


def entry_agent(making):
    from agents.baselines.rules import nothing

    return nothing(making)


def opened(folder: Path, agents=AGENTS, rules: Rules = RULES, horizons=None, **more):
    return open_board(folder, rules, [DRUG], horizons or {DRUG: (3, 4)}, agents, salt=SALT, **more)


def judged(board):
    for _ in run_groups(board.groups, board.rules, board.folder):
        pass
    return board.finished()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A board with three agents over two lengths, judged."""
    board = opened(tmp_path_factory.mktemp("board"))
    cells, missing = judged(board)
    assert not missing and len(cells) == 2 * (1 + 1 + 3)
    return board.folder


def test_a_damaged_board_is_named(tmp_path) -> None:
    for text, said in (
        ("[" * 100_000, "is no JSON"),
        ('{"salt": 5}', "is no board: its salt is 5"),
        ("{}", "is no board"),
    ):
        (tmp_path / "board.json").write_text(text)
        with pytest.raises(ValueError, match=f"board.json {said}"):
            opened(tmp_path)
    (tmp_path / "cell.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="cell.json is damaged.*delete it"):
        read_cell(tmp_path / "cell.json")


# ---- cells


def test_a_cell_says_who_what_and_on_whom(folder) -> None:
    cell = read_cell(folder / "cells" / Cell("dofetilide label rule", DRUG, 4, 0).file)
    assert cell["status"] == "ok" and cell["patients"] == 6 and len(cell["earned"]["returns"]) == 6
    assert cell["earned"]["steps"] == [4] * 6 and len(cell["promised"]["costs"]) == 6
    assert re.fullmatch(r"[0-9a-f]{64}", cell["seal"]) and re.fullmatch(r"[0-9a-f]{64}", cell["world_seal"])
    assert cell["code"].split("+")[1] and cell["ms_single"] > 0 and "torsades" in cell["earned"]["outcomes"]
    short = read_cell(folder / "cells" / Cell("dofetilide label rule", DRUG, 3, 0).file)
    assert short["earned"]["returns"] != cell["earned"]["returns"]
    names = {path.name for path in (folder / "cells").iterdir()}
    assert len(names) == 10 and not any(".part" in name for name in names)


def test_a_board_goes_on_where_it_stopped_and_is_never_mixed(folder) -> None:
    before = {p: p.stat().st_mtime_ns for p in (folder / "cells").iterdir()}
    gone = folder / "cells" / Cell("nothing", DRUG, 3, 0).file
    old = json.loads(gone.read_text())
    gone.unlink()
    judged(opened(folder))
    after = {p: p.stat().st_mtime_ns for p in (folder / "cells").iterdir()}
    assert {p for p in after if after[p] != before.get(p)} == {gone}, "only what was missing is judged"
    new = json.loads(gone.read_text())
    assert new["earned"] == old["earned"] and new["promised"] == old["promised"], "on the same patients"
    for other in ({"rules": replace(RULES, patients=7)}, {"seeds": 1}, {"horizons": {DRUG: (3,)}}):
        with pytest.raises(ValueError, match="another .*; give the same"):
            opened(folder, **other)
    with pytest.raises(ValueError, match="another salt"):
        open_board(folder, RULES, [DRUG], {DRUG: (3, 4)}, AGENTS, salt="cd" * 16)
    gone.write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        opened(folder).finished()
    gone.write_text(json.dumps(new))


def test_what_fails_is_a_row_with_its_reason(tmp_path) -> None:
    sick = Entry("sick", (DRUG,), f"{__name__}:broken", "policy", "here", seeds=2)
    cells, _ = judged(opened(tmp_path, [entry("nothing"), sick], horizons={DRUG: (3,)}))
    rows = {r["agent"]: r for r in rows_of(cells)}
    assert rows["nothing"]["status"] == "ok" and rows["sick"]["status"] == "failed"
    assert "seed 1" in rows["sick"]["reason"] and "no luck" in rows["sick"]["reason"] and "return" not in rows["sick"]
    assert "failed: seed 1" in as_markdown(list(rows.values()))
    page = board_page(list(rows.values()), [], "x")
    assert "no luck" in page and "1 rows failed" in page


def told(making):
    """A builder that keeps where it can learn of its patients."""
    agent = entry_agent(making)
    agent.state_of = making.state_of
    HEARD.append(making.state_of)
    return agent


HEARD: list = []


def test_only_a_reference_that_owns_the_oracle_is_told_true_states(tmp_path) -> None:
    from agents.board.cell import run_cell

    HEARD.clear()
    owner = Entry("owner", (DRUG,), f"{__name__}:told", "reference", "here", "oracle", owns_state=True)
    other = Entry("other", (DRUG,), f"{__name__}:told", "reference", "here", "oracle")
    rules = replace(RULES, edition="e" * 64)
    found = [run_cell(e, Cell(e.name, DRUG, 3, 0), rules, tmp_path) for e in (owner, other)]
    assert found[0]["earned"]["returns"] == found[1]["earned"]["returns"] and HEARD[1] is None
    assert HEARD[0]().t.tolist() == [3], "the state of whom it decided for last, after its last step"


@pytest.mark.slow
def test_processes_judge_what_one_process_does(folder, tmp_path) -> None:
    board = opened(tmp_path, AGENTS[:2])
    list(run_groups(board.groups, board.rules, board.folder, "processes", 1))
    for cell in board.finished()[0]:
        alone = read_cell(folder / "cells" / Cell(**cell["cell"]).file)
        assert alone["earned"]["costs"] == cell["earned"]["costs"]
        assert alone["earned"]["returns"] == pytest.approx(cell["earned"]["returns"], rel=1e-4)
    with pytest.raises(ValueError, match="spread 'wide'"):
        next(run_groups(board.groups, board.rules, board.folder, "wide"))
    assert set(SPREADS) == {"serial", "processes", "ray"}


def test_a_cluster_judges_what_one_process_does(folder, tmp_path) -> None:
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        board = opened(tmp_path, AGENTS[:2])
        assert len(list(run_groups(board.groups, board.rules, board.folder, "ray"))) == 2
        cells, missing = board.finished()
    finally:
        ray.shutdown()
    assert not missing
    for cell in cells:
        alone = read_cell(folder / "cells" / Cell(**cell["cell"]).file)
        assert alone["earned"]["returns"] == pytest.approx(cell["earned"]["returns"], rel=1e-4)


def test_a_cluster_without_its_library_names_the_extra(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    board = opened(tmp_path, AGENTS[:1])
    with pytest.raises(ModuleNotFoundError, match=r"clinenv\[ray\]"):
        next(run_groups(board.groups, board.rules, board.folder, "ray"))


# ---- figures


def test_intervals_hold_the_seeds_and_the_patients() -> None:
    rng = np.random.default_rng(0)
    patients = torch.as_tensor(rng.normal(size=(1, 400)))
    plain = crossed_mean(patients)
    half = 1.96 * float(patients.std()) / 20
    assert plain.low == pytest.approx(plain.value - half, abs=0.02) and plain.value == pytest.approx(patients.mean())
    trained = torch.tensor([[0.0], [1.0], [2.0]]) + patients  # seeds differ by far more than patients' means do
    both = crossed_mean(trained)
    assert both.low < 0.5 < 1.5 < both.high, "three trainings that far apart promise nothing"
    same = crossed_mean(patients.expand(3, -1))
    assert same.low == pytest.approx(plain.low, abs=1e-9), "a seed that changes nothing adds no doubt"


def test_tails_and_shares_are_those_of_numpy() -> None:
    values = torch.as_tensor(np.random.default_rng(1).normal(size=(2, 200)))
    tail = crossed_cvar(values, 0.05)
    assert (
        tail.value == pytest.approx(np.sort(values.numpy().ravel())[:20].mean()) and tail.low < tail.value < tail.high
    )
    above = crossed_ratio(2.0 * values.abs(), values.abs().mean(0))
    assert above.value == pytest.approx(2.0) and above.low == pytest.approx(2.0, abs=0.2)


def test_rows_are_paired_with_the_best_rule(folder) -> None:
    rows = rows_of(opened(folder).finished()[0])
    assert [(r["steps"], r["seeds"]) for r in rows if r["agent"] == "random"] == [(3, 3), (4, 3)]
    some = {r["agent"]: r for r in rows if r["steps"] == 4}
    best = some[some["nothing"]["best_rule"]]
    assert best["minus_rule"] == best["minus_rule_low"] == best["minus_rule_high"] == 0.0
    assert best["return"] == max(r["return"] for r in some.values()), "all three are simple"
    for row in some.values():
        assert row["minus_rule"] == pytest.approx(row["return"] - best["return"], abs=1e-4)
        assert row["gap"] == pytest.approx(row["promised"] - row["return"], abs=1e-4)
        assert row["return_low"] <= row["return"] <= row["return_high"]
        assert row["return_cvar"] <= row["return"] and row["cost_cvar"] >= row["cost"] and "regret" not in row
    assert figure({"x": -0.0001, "x_low": -0.2, "x_high": 0.25}, "x") == "0.000 [-0.200, 0.250]"


def test_who_thinks_long_is_compared_on_its_own_patients(folder, tmp_path) -> None:
    slow = replace(entry("nothing"), name="thinker", slow=True, kind="reference")
    cells, _ = judged(opened(tmp_path, [*AGENTS[:2], slow]))
    rows = {r["agent"]: r for r in rows_of(cells) if r["steps"] == 4}
    assert rows["thinker"]["patients"] == 3 and rows["nothing"]["patients"] == 6
    assert rows["nothing"]["regret"] == pytest.approx(0.0, abs=1e-9), "on the three, it is the same agent"
    assert rows["thinker"]["best_reference"] == "thinker" and rows["nothing"]["best_rule"] != "thinker"


# ---- pages


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.outside: list[str] = []
        self.rows = 0
        self.data: dict[str, str] = {}
        self._in = None

    def handle_starttag(self, tag, attrs) -> None:
        given = dict(attrs)
        self.outside += [v for k, v in given.items() if k in ("src", "href", "action", "data") and v]
        self.rows += tag == "tr" and "data-row" in given
        self._in = given.get("id") if tag == "script" else None

    def handle_data(self, data) -> None:
        if self._in:
            self.data[self._in] = data


def test_the_page_stands_alone_and_is_no_advice(folder) -> None:
    rows = rows_of(opened(folder).finished()[0])
    evil = '</script><script>alert("x")</script>'
    rows[0] = {**rows[0], "agent": evil, "source": "<b>"}
    page = board_page(
        rows, [("Salt", SALT)], "python -m x", [{"id": DRUG, "steps": 4, "constant": "c", "learned": 1.0}]
    )
    reader = Reader()
    reader.feed(page)
    assert not reader.outside and "@import" not in page and "fetch(" not in page and evil not in page
    told = json.loads(reader.data["rows"])
    assert reader.rows == len(rows) == len(told) and told[0]["agent"] == evil and SALT in page
    assert page.count("not for clinical use") >= 3 and "no medical advice" in page
    assert {"return", "return_low", "gap_high", "kind", "length"} <= told[1].keys()
    assert 'name="viewport"' in page and "1 constants" in page


def test_the_command_writes_every_table_and_goes_on(tmp_path, capsys) -> None:
    common = ["--quick", "--ids", DRUG, "--patients", "4", "--spread", "serial", "--runs", str(tmp_path / "runs")]
    common += ["--agents", "nothing", "best constant", "--out", str(tmp_path)]
    assert leaderboard.main([*common, "--salt", SALT]) == 0
    rows = read_csv(tmp_path / "leaderboard.csv")
    assert {r["agent"] for r in rows} == {"nothing", "best constant"} and {r["patients"] for r in rows} == {"4"}
    assert all(float(r["return_low"]) <= float(r["return"]) <= float(r["return_high"]) for r in rows)
    made = [provenance(tmp_path / f"leaderboard.{ending}") for ending in ("csv", "md", "html")]
    assert made[0] == made[1] == made[2] and made[0]["seeds"]["salt"] == SALT
    assert "oracle" not in made[0]["seals"] and made[0]["seals"]["ecg-wm-small"]
    constants = read_csv(tmp_path / "leaderboard_constants.csv")
    assert len(constants) > 30 and len(constants_tried(tmp_path / "runs" / "quick")) == len(constants)
    cells = {p: p.stat().st_mtime_ns for p in (tmp_path / "runs/quick/cells").iterdir()}
    assert leaderboard.main([*common, "--tables-only"]) == 0
    assert cells == {p: p.stat().st_mtime_ns for p in cells} and read_csv(tmp_path / "leaderboard.csv") == rows
    capsys.readouterr()


def test_shards_share_their_patients_and_wrong_arguments_exit_with_2(tmp_path, capsys) -> None:
    common = ["--quick", "--ids", DRUG, "--patients", "4", "--spread", "serial", "--agents", "nothing", "random"]
    common += ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out"), "--shards", "2"]
    assert leaderboard.main([*common, "--shard", "0"]) == 2 and "--salt" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    for shard in ("0", "1"):
        assert leaderboard.main([*common, "--shard", shard, "--salt", SALT]) == 0
    assert not (tmp_path / "out").exists() and len(list((tmp_path / "runs/quick/cells").iterdir())) == 4
    assert leaderboard.main([*common, "--tables-only", "--salt", SALT]) == 0
    assert len(read_csv(tmp_path / "out" / "leaderboard.csv")) == 2
    assert leaderboard.main([*common, "--agents", "nobody", "--salt", SALT]) == 2
    assert "no agent 'nobody'" in capsys.readouterr().err
    with pytest.raises(SystemExit) as end:
        leaderboard.main([*common, "--shard", "2"])
    assert end.value.code == 2
