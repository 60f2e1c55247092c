"""The vision-language step: a tiny model that knows nothing, grammar and free speech, and answers of every kind."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from clinenv.commands.main import main
from clinenv.commands.recommend.advice import checked, entry_text
from clinenv.commands.recommend.candidates import candidates_of
from clinenv.commands.recommend.grammar import RankingGrammar
from clinenv.commands.recommend.label_rules import Facts
from tests.clinenv.records import write_record
from world_models.oracles.ecg_drug.world import ECGDrugOracle

transformers = pytest.importorskip("transformers")
WELL = Facts(
    qtcf_ms=410.0, qt_ms=400.0, qrs_ms=92.0, heart_rate_bpm=66.0, pr_ms=160.0, creatinine_clearance_ml_min=50.0
)
CANDIDATES = candidates_of(ECGDrugOracle(), WELL)  # at this clearance dofetilide 500 µg is forbidden
PIXELS, PATCH = 28, 14


def byte_tokenizer() -> Any:
    """Every byte a token: writes whatever it is told to."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from tokenizers.pre_tokenizers import ByteLevel

    words = ["<pad>", "<s>", "</s>", "<image>", *sorted(ByteLevel.alphabet())]
    own = Tokenizer(models.BPE({w: i for i, w in enumerate(words)}, []))
    own.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    own.decoder = decoders.ByteLevel()
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=own, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
    made.add_special_tokens({"additional_special_tokens": ["<image>"]})
    return made


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llava of 50,000 parameters with its processor."""
    import torch
    from transformers import CLIPImageProcessor, CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaProcessor
    from transformers import LlavaForConditionalGeneration as Llava

    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    sight = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=PIXELS,
        patch_size=PATCH, projection_dim=16,
    )  # fmt: skip
    words = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=8192, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    image = tokenizer.convert_tokens_to_ids("<image>")
    made = Llava(LlavaConfig(vision_config=sight, text_config=words, image_token_index=image, image_token_id=image))
    made.generation_config.eos_token_id, made.generation_config.pad_token_id = 2, 0
    folder = tmp_path_factory.mktemp("vlm")
    made.save_pretrained(folder)
    pictures = CLIPImageProcessor(size={"shortest_edge": PIXELS}, crop_size={"height": PIXELS, "width": PIXELS})
    LlavaProcessor(
        image_processor=pictures, tokenizer=tokenizer, patch_size=PATCH, vision_feature_select_strategy="default",
        image_token="<image>", num_additional_image_tokens=1,
    ).save_pretrained(folder)  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_record(tmp_path_factory.mktemp("records"))


def recommend(record: Path, folder: Path, *more: str) -> int:
    out = ("--out", str(folder / "r.html"), "--json", str(folder / "r.json"))
    who = ("--age", "61", "--sex", "F", "--world", "oracle", "--samples", "4", "--hours", "4")
    return main(["recommend", "--ecg", str(record), *who, "--creatinine-clearance", "50", *out, *more])


def test_within_the_grammar_even_a_random_model_ranks_what_the_label_allows(
    model: Path, record: Path, tmp_path: Path
) -> None:
    assert recommend(record, tmp_path, "--vlm", str(model)) == 0
    said = json.loads((tmp_path / "r.json").read_text())["vision_language"]
    assert said["parsed"] and not said["refused"] and said["ranking"]
    assert json.loads(said["answer"])["ranking"] and len(set(said["ranking"])) == len(said["ranking"])
    assert set(said["ranking"]) <= {c.name for c in CANDIDATES if not c.forbidden}
    html = (tmp_path / "r.html").read_text()
    assert "What the vision-language model says" in html and said["model"] in html


def test_free_speech_that_does_not_parse_is_reported_and_changes_nothing(
    model: Path, record: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert recommend(record, tmp_path, "--vlm", str(model), "--vlm-free", "--vlm-tokens", "24") == 0
    found = json.loads((tmp_path / "r.json").read_text())
    said = found["vision_language"]
    assert not said["parsed"] and said["ranking"] == [] and "no JSON object" in said["problem"]
    assert "not taken over" in capsys.readouterr().out
    assert recommend(record, tmp_path) == 0
    alone = json.loads((tmp_path / "r.json").read_text())
    assert alone["ranking"] == found["ranking"] and alone["vision_language"] is None


@pytest.mark.parametrize("spoilt", ["no model", "no processor", "another model", "broken config"])
def test_a_wrong_folder_is_refused_before_the_work(
    model: Path, record: Path, tmp_path: Path, spoilt: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    folder, out = tmp_path / "vlm", tmp_path / "out"
    out.mkdir()
    shutil.copytree(model, folder)
    if spoilt == "no model":
        (folder / "model.safetensors").unlink()
    elif spoilt == "no processor":
        for file in folder.glob("*token*"):
            file.unlink()
        for file in folder.glob("*process*"):
            file.unlink()
    elif spoilt == "another model":
        (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    else:
        (folder / "config.json").write_text("{")
    assert recommend(record, out, "--vlm", str(folder)) == 2
    assert f"--vlm {folder}" in capsys.readouterr().err and not list(out.iterdir())


# ---- answers


def entry(drug: str, dose_mg: Any) -> dict[str, Any]:
    return {"drug": drug, "dose_mg": dose_mg}


def test_what_stands_of_an_answer() -> None:
    entries = [
        entry("ranolazine", 500),
        entry("Dofetilide", 0.25),
        entry("dofetilide", 0.5),
        entry("ranolazine", 500.0),
        entry("aspirin", 100),
        entry("quinidine", 5000),
        entry("quinidine", 250),
        entry("quinidine", "200"),
        entry("quinidine", True),
        "verapamil",
        {"drug": "nothing"},
    ]
    text = "Sure! {not json} Here: " + json.dumps({"ranking": entries, "reason": "low risk"}) + " Good luck."
    found = checked(text, "m", CANDIDATES)
    assert found.ranking == ("ranolazine 500 mg", "dofetilide 250 µg", "nothing") and found.reason == "low risk"
    why = " | ".join(r.why for r in found.refused)
    for words in (
        "label forbids it in this patient: above the label's starting dose",
        "twice", "none of the drugs", "outside 0 to 800 mg", "was not simulated", "is no number", "no object",
    ):  # fmt: skip
        assert words in why
    assert len(found.refused) == 8 and found.text == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I would give dofetilide.",
        "{",
        '{"ranking": "dofetilide"}',
        '{"ranking": [NaN]}',
        "{" * 5000,
        '{"ranking": [' + '{"drug": "nothing"},' * 200 + '{"drug": "nothing"}]}',
        '{"order": []}',
    ],
)
def test_what_does_not_parse_recommends_nothing(text: str) -> None:
    found = checked(text, "m", CANDIDATES)
    assert found.problem and not found.ranking and found.as_json()["parsed"] is False
    assert found.summary().startswith("not taken over")


def test_an_answer_that_is_markup_stays_text(record: Path, tmp_path: Path) -> None:
    from clinenv.commands.recommend.page import _advice

    found = checked("<script>alert(1)</script>", "m<b>", CANDIDATES)

    @dataclasses.dataclass
    class Content:
        advice: tuple
        answer: str

    assert "<script>" not in _advice(Content(found.rows(), found.text)) and "m&lt;b&gt;" in _advice(
        Content(found.rows(), found.text)
    )


# ---- the grammar


def test_every_way_through_the_grammar_parses() -> None:
    tokenizer = byte_tokenizer()
    entries = [entry_text(c) for c in CANDIDATES]
    grammar = RankingGrammar(tokenizer, entries, [2])
    for salt in range(40):
        written: list[int] = []
        while True:
            ways = grammar.next(written)
            assert ways
            choice = ways[(salt * 7 + len(written) * 3) % len(ways)]
            if choice == 2:
                break
            written.append(choice)
            assert len(written) < grammar.longest
        said = json.loads(tokenizer.decode(written))["ranking"]
        assert 1 <= len(said) <= len(entries) and all(json.dumps(e) in entries for e in said)
        assert len({json.dumps(e) for e in said}) == len(said)
        assert grammar.next([*written, 0]) == [2], "what strays from the grammar ends"


def test_a_tokenizer_that_cannot_write_json_is_refused() -> None:
    class Deaf:
        def encode(self, text: str, add_special_tokens: bool) -> list[int]:
            return [0]

        def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
            return "?"

    with pytest.raises(ValueError, match="cannot write JSON"):
        RankingGrammar(Deaf(), ['{"drug": "nothing"}'], [2])
    with pytest.raises(ValueError, match="at least one entry"):
        RankingGrammar(byte_tokenizer(), [], [2])


# ---- behind an address


@pytest.fixture
def server() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            text = json.dumps({"ranking": [entry("verapamil", 80), entry("dofetilide", 0.5)], "reason": "ok"})
            body = json.dumps({"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    http = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}/v1", asked
    http.shutdown()
    http.server_close()


def test_a_served_model_sees_picture_and_numbers(server: Any, record: Path, tmp_path: Path) -> None:
    url, asked = server
    assert recommend(record, tmp_path, "--vlm-url", url, "--vlm-model", "seer") == 0
    said = json.loads((tmp_path / "r.json").read_text())["vision_language"]
    assert said["ranking"] == ["verapamil 80 mg"] and "label forbids" in said["refused"][0]["why"]
    picture, words = asked[0]["messages"][0]["content"]
    assert picture["image_url"]["url"].startswith("data:image/png;base64,iVBOR") and asked[0]["model"] == "seer"
    assert "longest QTcF" in words["text"] and "woman of 61 years" in words["text"]
    assert '{"drug": "dofetilide", "dose_mg": 0.5}' in words["text"] and "contraindicated" in words["text"]


def test_a_server_that_is_not_there_is_an_error(
    record: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert recommend(record, tmp_path, "--vlm-url", "http://127.0.0.1:9/v1", "--vlm-model", "m") == 2
    assert "--vlm-url" in capsys.readouterr().err and not list(tmp_path.iterdir())
