"""Grammar and tokenisations: an outcome can always be written, and only an outcome; quantile tokens tell their stay."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ehr_world.causal_stays import stay, stays
from world_models.ehr_world.causal_lm.codec import (
    IGNORED,
    TextCodec,
    encode,
    last_steps,
    train_tokenizer,
    windows,
)
from world_models.ehr_world.causal_lm.codecs import load_codec
from world_models.ehr_world.causal_lm.grammar import (
    DONE,
    EITHER,
    LABEL,
    NUMBER,
    Automaton,
    GrammarError,
    text_automaton,
)
from world_models.ehr_world.causal_lm.text import (
    AskedItem,
    NarrativeError,
    NarrativeStep,
    outcome_text,
    parse_outcome,
    render,
)
from world_models.ehr_world.causal_lm.tokens import GAPS, QuantileCodec

# digits, two-digit and mixed pieces, as real vocabularies have them
PIECES = ["", *'0123456789.-e"\n \\|abn', "12", "4.", ".5", '"\n', "5\n", "ne", 'g"', "\n\n", "a\nb", "\\n", "\ufffd"]


@pytest.fixture(scope="module")
def text_codec() -> TextCodec:
    return TextCodec(train_tokenizer([render(s) for s in stays(12)], 400))


@pytest.fixture(scope="module")
def quantile_codec() -> QuantileCodec:
    return QuantileCodec.fit(stays(40))


def walk(automaton: Automaton, kind: str, choices: list[int], budget: int) -> list[int]:
    """Tokens of one outcome, each the (choice modulo the number allowed)-th of those allowed."""
    state, taken = torch.tensor([automaton.start(kind)]), []
    for left in range(budget, 0, -1):
        allowed = automaton.allowed(state, left)[0].nonzero()[:, 0]
        assert len(allowed), "an outcome got stuck"
        taken.append(int(allowed[choices[len(taken) % len(choices)] % len(allowed)]))
        state = automaton.advance(state, torch.tensor([taken[-1]]))
        if int(state) == DONE:
            return taken
    raise AssertionError("an outcome did not end within its budget")


AUTOMATON = text_automaton(PIECES, {"status": ['"ab"\n', '"a"\n', "1\n"]})


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([EITHER, NUMBER, LABEL, "status"]), st.lists(st.integers(0, 999), min_size=1), st.integers(1, 30)
)
def test_whatever_is_drawn_ends_in_time_and_parses(kind: str, choices: list[int], budget: int) -> None:
    start = AUTOMATON.start(kind)
    tokens = walk(AUTOMATON, kind, choices, max(budget, int(AUTOMATON.left[start])))
    text = "".join(PIECES[t] for t in tokens)
    asked = parse_outcome("ph", text)
    assert (asked.label is None) == {NUMBER: True, LABEL: False}.get(kind, asked.label is None)
    assert kind != "status" or text in ('"ab"\n', '"a"\n', "1\n")
    assert AUTOMATON.accepts(kind, tokens) and not AUTOMATON.accepts(kind, tokens[:-1])


def test_the_grammar_reads_what_is_written() -> None:
    ids = {piece: i for i, piece in enumerate(PIECES) if piece}

    def spelled(text: str) -> list[int]:
        return [ids[c] for c in text]

    for value in (4.0, -0.25, 112.5, 1e-05, 123456789.0):
        assert AUTOMATON.accepts(NUMBER, spelled(outcome_text(AskedItem("ph", value, None, "1")))), value
    assert AUTOMATON.accepts(EITHER, [ids["12"], ids[".5"], ids["\n"]])
    assert AUTOMATON.accepts(EITHER, spelled('"a \\\\b"\n')) and AUTOMATON.accepts(
        EITHER, [ids['"'], ids["ne"], ids['g"'], ids["\n"]]
    )
    for text in ("4", "4\n\n", "-\n", "4.\n", ".5\n", "1e5\n", '"a\n', "a\n", '"a|b"\n', '"a"b"\n', "\n"):
        assert not AUTOMATON.accepts(EITHER, spelled(text)), text


def test_a_vocabulary_that_cannot_write_is_refused() -> None:
    with pytest.raises(GrammarError, match="no tokens to write an outcome"):
        text_automaton(["1", "2", ".", "-"])
    with pytest.raises(GrammarError, match="only newline"):
        text_automaton(PIECES, {"status": ["stays"]})
    with pytest.raises(KeyError, match="there are: either"):
        AUTOMATON.start("status2")


def test_text_tokens_give_back_the_text(text_codec: TextCodec) -> None:
    told = stay(3)
    encoded = encode(text_codec, told)
    first = text_codec.tokenizer.bos_token_id
    assert encoded.ids[0] == first and "".join(text_codec.pieces[t] for t in encoded.ids[1:]) == render(told)
    learnt = "".join(text_codec.pieces[t] for t in encoded.labels if t != IGNORED)
    assert learnt == "".join(outcome_text(a) for s in told.steps for a in s.asked), (
        "loss on the outcomes and nothing else"
    )
    for step in told.steps:
        for a in step.asked:
            tokens = text_codec.outcome(a)
            assert text_codec.decode(a.item, tokens) == a
            assert text_codec.automaton.accepts(text_codec.kind(a.item), tokens)


def test_windows_hold_every_outcome_once(text_codec: TextCodec) -> None:
    told = stay(3, steps=9)
    whole = encode(text_codec, told)
    limit = len(whole.ids) // 3
    pieces = windows(text_codec, told, limit)
    assert len(pieces) > 3 and all(len(p.ids) <= limit for p in pieces)
    assert [t for p in pieces for t in p.labels if t != IGNORED] == [t for t in whole.labels if t != IGNORED]
    assert all(p.ids[: len(text_codec.context(told))] == text_codec.context(told) for p in pieces)
    assert windows(text_codec, told, 10_000) == [whole]
    tail = last_steps(text_codec, told, limit)
    assert tail.steps == told.steps[-len(tail.steps) :] and 1 < len(tail.steps) < len(told.steps)
    assert (
        len(encode(text_codec, tail).ids)
        <= limit
        < len(encode(text_codec, told._replace(steps=told.steps[-len(tail.steps) - 1 :])).ids)
    )
    assert last_steps(text_codec, told, 10_000) == told
    with pytest.raises(NarrativeError, match="over the limit of 20"):
        windows(text_codec, told, 20)


def test_codecs_are_saved_and_damage_is_named(
    text_codec: TextCodec, quantile_codec: QuantileCodec, tmp_path: Path
) -> None:
    for name, codec in (("text", text_codec), ("quantile", quantile_codec)):
        codec.save(tmp_path / name)
        again = load_codec(tmp_path / name)
        assert encode(again, stay(2)) == encode(codec, stay(2)) and torch.equal(
            again.automaton.next, codec.automaton.next
        )
    (tmp_path / "quantile" / "codec.json").write_text('{"codec": "quantile"}')
    with pytest.raises(ValueError, match="damaged"):
        load_codec(tmp_path / "quantile")
    (tmp_path / "text" / "codec.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        load_codec(tmp_path / "text")
    with pytest.raises(FileNotFoundError, match="nothing is downloaded"):
        load_codec(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no tokenizer"):
        load_codec(tmp_path / "empty")
    with pytest.raises(ValueError, match="at least 300"):
        train_tokenizer(["a"], 100)


@pytest.mark.parametrize("number", range(4))
def test_tokens_to_events_to_tokens(quantile_codec: QuantileCodec, number: int) -> None:
    tokens = quantile_codec.encode(stay(number, 6))
    told = quantile_codec.narrative(tokens, 4.0)
    assert quantile_codec.encode(told) == tokens
    assert [s.number for s in told.steps] == [s.number for s in stay(number, 6).steps]
    true = [a for s in stay(number, 6).steps for a in s.asked]
    assert [(a.item, a.label) for s in told.steps for a in s.asked] == [(a.item, a.label) for a in true]
    names = [quantile_codec.names[t] for t in tokens]
    assert names[0] == "<start>" and names.index("gap:1") < names.index("ask:heart_rate_bpm")


def test_quantiles_share_the_values_out_and_stay_in_their_bin(quantile_codec: QuantileCodec) -> None:
    told = [
        s.steps[0]._replace(asked=(AskedItem("ph", v, None, "1"),))
        for v, s in zip(torch.linspace(7, 7.5, 101).tolist(), stays(101), strict=True)
    ]
    codec = QuantileCodec.fit([stay(i)._replace(steps=(step,)) for i, step in enumerate(told)], n_bins=10)
    counts = torch.bincount(torch.tensor([codec.outcome(s.asked[0])[0] for s in told]))
    assert sorted(counts[counts > 0].tolist()) == [10] * 9 + [11]
    for token in range(codec.ids["q0"], codec.ids["q9"] + 1):
        values = [codec.decode("ph", [token], where).value for where in (0.0, 0.2, 0.5, 0.8, 1.0)]
        assert values == sorted(values)
        assert {codec.outcome(AskedItem("ph", v, None, "1"))[0] for v in values} == {token}
    far = codec.decode("ph", codec.outcome(AskedItem("ph", 6.0, None, "1"))).value
    assert 7.0 <= far <= 7.05, "a value below all of training falls into the first bin"


def test_an_item_with_few_values_keeps_them_all() -> None:
    told = [
        stay(0)._replace(steps=(NarrativeStep(0, (AskedItem("gcs", float(v), None, "1"),)),))
        for v in [15] * 50 + [14, 3, 9]
    ]
    codec = QuantileCodec.fit(told, 5)
    for value in (3.0, 9.0, 14.0, 15.0):
        assert codec.decode("gcs", codec.outcome(AskedItem("gcs", value, None, "1"))).value == value


def test_what_training_never_met(quantile_codec: QuantileCodec) -> None:
    odd = stay(0)._replace(
        steps=(NarrativeStep(3, (AskedItem("ph", 7.3, None, "1"), AskedItem("status", label="eloped"))),)
    )
    with pytest.raises(NarrativeError, match="no inquiry 'ph'.*leave it out"):
        quantile_codec.encode(odd)
    kept, lost = quantile_codec.known(odd)
    assert lost == 1 and quantile_codec.names[quantile_codec.encode(kept)[-1]] == "label:?"
    with pytest.raises(NarrativeError, match="time runs backwards"):
        quantile_codec.orders(NarrativeStep(3), 3, 4.0)
    with pytest.raises(ValueError, match="at least 2"):
        QuantileCodec.fit(stays(3), 1)
    with pytest.raises(NarrativeError, match="no outcome"):
        QuantileCodec.fit([stay(0)._replace(steps=())])
    assert GAPS[0] == 1 and json.loads(json.dumps(quantile_codec.to_dict())) == quantile_codec.to_dict()
