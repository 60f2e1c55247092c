"""Notes to contexts: a model that errs and is asked again, the rules in its place, the file that a kill leaves."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.ehr_world.test_llm_client import Stub, said, stub
from tests.kills import kill_at, needs_fork
from world_models.data.ehr.context import __main__ as command
from world_models.data.ehr.context import context_file, read_all
from world_models.data.ehr.context.context_file import read_contexts, read_lines
from world_models.data.ehr.context.model import endpoint, extract, found_json
from world_models.data.ehr.context.notes import Note, count_notes, read_notes
from world_models.data.ehr.context.schema import ConfigError, StatedDiagnosis, StaticContext, as_json
from world_models.data.ehr.tables import EhrDataError
from world_models.ehr_world.causal_lm.client import LLMClient

__all__ = ["stub"]  # the fixture
NOTE = "67 year old woman with CKD, treated for sepsis because of a lactate of 4.2."
RIGHT = StaticContext(
    67.0,
    "female",
    None,
    StatedDiagnosis("sepsis", "lactate of 4.2", None, ("sepsis",)),
    (StatedDiagnosis("CKD", "", None, ("chronic_kidney_disease",)),),
)
ANSWER = json.dumps(as_json(RIGHT))


class Model:
    """A callable that gives these answers in turn to every note, and remembers what it was asked."""

    def __init__(self, *answers: str | Exception) -> None:
        self.answers, self.asked = answers, []

    def __call__(self, prompts: Sequence) -> list[str | Exception]:
        self.asked.append(list(prompts))
        return [self.answers[min(len(self.asked), len(self.answers)) - 1]] * len(prompts)


# ---- one note


def test_a_right_answer_stands_however_it_is_wrapped() -> None:
    model = Model(f'<think>{{"age_years": 3}}</think>Here it is {{}}:\n```json\n{ANSWER}\n```')
    (found,) = extract([NOTE], model)
    assert (found.context, found.speaker, found.attempts, found.refused) == (RIGHT, "model", 1, {})
    with pytest.raises(ConfigError, match="no JSON"):
        found_json("I cannot { do that")


def test_a_wrong_answer_is_sent_back_with_what_was_wrong() -> None:
    off = json.dumps({**as_json(RIGHT), "sex": "F"})
    invented = json.dumps({**as_json(RIGHT), "allergies": ["latex"]})
    model = Model("no idea", off, invented, ANSWER)
    (found,) = extract([NOTE], model, most_attempts=4)
    assert (found.context, found.speaker, found.attempts) == (RIGHT, "model", 4)
    assert found.refused == {"no JSON": 1, "off the schema": 1, "not in the note: allergies": 1}
    corrections = [prompts[0][-1]["content"] for prompts in model.asked[1:]]
    assert "no JSON object" in corrections[0] and "'F'" in corrections[1] and "allergies" in corrections[2]
    assert [len(prompts[0]) for prompts in model.asked] == [4, 6, 6, 6]  # the last error only


def test_rules_speak_in_the_place_of_a_model_that_never_gets_it_right() -> None:
    (found,) = extract([NOTE], Model("no"), most_attempts=2)
    assert found.speaker == "rules" and found.attempts == 2 and found.refused == {"no JSON": 2}
    assert "no JSON" in found.error and found.context.terms() == {"sepsis", "chronic_kidney_disease"}
    (found,) = extract([NOTE], Model(RuntimeError("cable pulled")), most_attempts=2)
    assert found.speaker == "rules" and found.error == "cable pulled" and found.refused == {"no answer": 2}
    assert extract([NOTE], None)[0].speaker == "rules"


def test_what_is_invented_is_left_out_of_the_last_answer() -> None:
    invented = json.dumps(as_json(RIGHT) | {"age_years": 99})
    (found,) = extract([NOTE], Model(invented), most_attempts=2)
    assert found.speaker == "model" and found.context.age_years is None and found.context.primary == RIGHT.primary
    assert found.refused == {"not in the note: age_years": 2}
    all_of_it = json.dumps({**as_json(StaticContext()), "primary": {"name": "gout"}})
    assert extract([NOTE], Model(all_of_it), most_attempts=1)[0].speaker == "rules"


def test_only_notes_still_open_are_asked_again() -> None:
    def model(prompts: Sequence) -> list[str | Exception]:
        rounds.append(len(prompts))
        return [ANSWER if "sepsis" in p[3]["content"] else "?" for p in prompts]

    rounds: list[int] = []
    found = extract([NOTE, "He had gout.", NOTE], model)
    assert [f.speaker for f in found] == ["model", "rules", "model"] and rounds == [3, 1, 1]


# ---- a server


def client(stub: Stub, **settings: object) -> LLMClient:
    return LLMClient(stub.url, "small", **{"backoff_s": 0.01, "timeout_s": 5.0, "retries": 1, **settings})


def test_a_server_is_asked_at_temperature_0_within_the_schema(stub: Stub) -> None:
    stub.answer = lambda body, n: said(body, ANSWER)
    (found,) = extract([NOTE], endpoint(client(stub)))
    assert found.context == RIGHT
    body = stub.seen[0]
    assert (
        body["temperature"] == 0.0 and body["response_format"]["json_schema"]["schema"]["additionalProperties"] is False
    )


def test_a_server_that_knows_no_schema_is_asked_without_from_then_on(stub: Stub) -> None:
    def plain_only(body: dict, n: int) -> tuple[int, dict[str, str], bytes]:
        return (400, {}, b"what is response_format?") if "response_format" in body else said(body, ANSWER)

    stub.answer = plain_only
    ask = endpoint(client(stub))
    assert [f.speaker for f in extract([NOTE, NOTE + " "], ask) + extract([NOTE], ask)] == ["model"] * 3
    assert ["response_format" in body for body in stub.seen].count(True) == 2  # of five requests


def test_a_note_that_the_server_refuses_is_not_asked_again(stub: Stub) -> None:
    stub.answer = lambda body, n: (400, {}, b"too long")
    (found,) = extract([NOTE], endpoint(client(stub)))
    assert found.speaker == "rules" and found.refused == {"request refused": 1} and len(stub.seen) == 2


# ---- notes


def table(path: Path, rows: list[dict]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def notes(count: int) -> list[dict]:
    return [
        {
            "note_id": f"{i}-DS",
            "subject_id": i,
            "hadm_id": 100 + i,
            "text": f'{40 + i} year old man.\n\n"CKD", DKA; {i}',
        }
        for i in range(count)
    ]


def test_notes_of_a_table_and_of_a_folder(tmp_path: Path) -> None:
    found = list(read_notes(table(tmp_path / "discharge.csv", [*notes(2), {**notes(3)[2], "text": " "}])))
    assert found[1] == Note("1-DS", 1, 101, '41 year old man.\n\n"CKD", DKA; 1') and len(found) == 2
    assert count_notes(tmp_path / "discharge.csv") == 3
    (tmp_path / "7_8.txt").write_text("gout")
    (tmp_path / "letter.txt").write_text("more gout")
    one, other = read_notes(tmp_path)
    assert (one.subject_id, one.hadm_id, one.text) == (7, 8, "gout") and other.hadm_id < 0


# ---- the command


def run(*arguments: object) -> int:
    return command.main([*map(str, arguments), "--quiet"])


def test_the_command_by_rules(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = table(tmp_path / "discharge.csv", notes(5)), tmp_path / "contexts.jsonl"
    assert run(source, "--out", out) == 0 and "rules: 5" in capsys.readouterr().out
    found = read_contexts(out)
    assert found[3, 103].age_years == 43.0 and found[3, 103].terms() >= {"chronic_kidney_disease", "diabetes"}
    assert {line["speaker"] for line in read_lines(out)} == {"rules"} and not list(tmp_path.glob("*.part"))
    assert run(source, "--out", out) == 2 and "is there already" in capsys.readouterr().err


def test_the_command_by_a_server(tmp_path: Path, stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "1_2.txt").write_text(NOTE)
    (tmp_path / "notes" / "1_3.txt").write_text("He had pneumonia.")
    stub.answer = lambda body, n: said(body, ANSWER if "sepsis" in body["messages"][3]["content"] else "no")
    out = tmp_path / "contexts.jsonl"
    assert run(tmp_path / "notes", "--out", out, "--endpoint", stub.url, "--model", "small") == 0
    said_by = {line["hadm_id"]: line["speaker"] for line in read_lines(out)}
    assert said_by == {2: "model", 3: "rules"} and read_contexts(out)[1, 2] == RIGHT
    assert "refused, no JSON: 3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.csv"], "does not exist"),
        (["notes.pdf"], "is none of"),
        (["empty"], "holds no .txt file"),
        (["short.csv"], "lacks the column"),
        (["latin.d"], "no UTF-8"),
        (["good.csv", "--model", "x"], "--endpoint"),
        (["good.csv", "--endpoint", "http://localhost:1/v1"], "--model"),
        (["good.csv", "--endpoint", "nonsense", "--model", "x"], "http"),
        (["good.csv", "--endpoint", "http://h/v1", "--model", "x", "--api-key-env", "NO_SUCH_VARIABLE"], "NO_SUCH"),
        (["good.csv", "--endpoint", "http://127.0.0.1:9/v1", "--model", "x", "--retries", "0"], "gave no answer"),
    ],
)
def test_bad_input_exits_with_2_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NO_SUCH_VARIABLE", raising=False)
    Path("notes.pdf").write_text("")
    Path("empty").mkdir()
    Path("latin.d").mkdir()
    Path("latin.d/1_1.txt").write_bytes("Geräusch".encode("latin-1"))
    table(Path("short.csv"), [{"subject_id": 1, "words": "gout"}])
    table(Path("good.csv"), notes(2))
    before = sorted(Path().rglob("*"))
    assert run(*arguments, "--out", "contexts.jsonl") == 2
    assert message in capsys.readouterr().err and sorted(Path().rglob("*")) == before


def test_options_that_argparse_refuses(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path, "--out", tmp_path / "x", "--attempts", "0")
    assert stopped.value.code == 2


@needs_fork
def test_a_run_that_was_killed_anywhere_goes_on_to_the_same_file(tmp_path: Path) -> None:
    source, whole = table(tmp_path / "discharge.csv", notes(6)), tmp_path / "whole.jsonl"

    def go(out: Path):
        return lambda: read_all.read_all(str(source), str(out), batch=2)

    go(whole)()
    halves = 0
    for line in range(0, 400, 37):
        out = tmp_path / f"killed_{line}.jsonl"
        if not kill_at(line, go(out), read_all, context_file):
            break
        part = out.with_name(f"{out.name}.part")
        halves += part.exists() and part.stat().st_size > 0
        if not out.exists():
            go(out)()
        assert out.read_bytes() == whole.read_bytes() and not part.exists()
    assert halves > 1


def test_a_part_is_cut_where_it_broke_and_another_runs_part_is_refused(tmp_path: Path) -> None:
    source, out = table(tmp_path / "discharge.csv", notes(3)), tmp_path / "contexts.jsonl"
    read_all.read_all(str(source), str(out))
    lines, part = out.read_bytes(), tmp_path / "contexts.jsonl.part"
    out.unlink()
    part.write_bytes(lines[: len(lines) // 2])
    counts = read_all.read_all(str(source), str(out))
    assert out.read_bytes() == lines and counts["read before"] == 1
    out.unlink()
    part.write_bytes(lines)
    with pytest.raises(EhrDataError, match="made by 'rules'"):
        read_all.read_all(str(source), str(out), Model(ANSWER), "model x")
    part.write_bytes(b"{}\n")
    with pytest.raises(EhrDataError, match="damaged"):
        read_all.read_all(str(source), str(out))


def test_of_several_notes_of_a_stay_the_fullest_counts(tmp_path: Path) -> None:
    rows = [{"subject_id": 1, "hadm_id": 2, "text": text} for text in ("Gout.", "CKD and sepsis.", "Sepsis.")]
    read_all.read_all(str(table(tmp_path / "n.csv", rows)), str(tmp_path / "c.jsonl"))
    assert read_contexts(tmp_path / "c.jsonl")[1, 2].terms() == {"sepsis", "chronic_kidney_disease"}
    with pytest.raises(EhrDataError, match="cannot be read"):
        read_contexts(tmp_path / "nowhere.jsonl")
    (tmp_path / "odd.jsonl").write_text('{"subject_id": 1, "hadm_id": 2}\n')
    with pytest.raises(EhrDataError, match="lacks the field 'context'"):
        read_contexts(tmp_path / "odd.jsonl")
