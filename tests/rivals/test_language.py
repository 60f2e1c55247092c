"""Language models: what they are asked, what counts as an answer, and what stands in where there is none."""

import pytest
import torch

from benchmarks.ecg_drug.rivals.frame import given
from benchmarks.ecg_drug.rivals.language import LanguageRival, ask, parse_table, transformers_folder
from tests.rivals.easy_pairs import drawn
from world_models.ecg.beat_axis import J_POINT
from world_models.oracles.ecg_drug.dynamics import ENDPOINTS

VALUES = (61.0, 170.0, 92.0, 260.0, 95.0, 480.0, 0.21, 0.44, 50.0, 32.0)
TABLE = "\n".join(f"{n}: {v:g}" for n, v in zip(ENDPOINTS, VALUES, strict=True))


def test_a_whole_table_is_read_and_nothing_less():
    assert parse_table(TABLE) == list(VALUES)
    assert parse_table(f"Here you are:\n{TABLE.replace(': 170', ' = 170 ms')}\nTake care.") == list(VALUES)
    assert parse_table("") is None and parse_table(TABLE.replace("qrs_ms: 92\n", "")) is None
    assert parse_table(TABLE + "\npr_ms: 171") is None  # which of the two?
    assert parse_table(TABLE.replace("pr_ms: 170", "pr_ms: 17000")) is None  # no heart has it
    assert parse_table(TABLE.replace("pr_ms: 170", "pr_ms: about 170")) is None
    assert parse_table(TABLE.replace("pr_ms: 170", "pr_ms: nan")) is None


def test_the_question_tells_patient_order_and_time_and_nothing_that_came_after():
    pairs = drawn("test", 100).take(slice(1))
    pairs = pairs._replace(drug=torch.tensor([2]), dose_mg=torch.tensor([0.5]), hours=torch.tensor([3.0]))
    system, user = ask(given(pairs), 0)
    assert system["role"] == "system" and "0.5 mg dofetilide by mouth" in user["content"]
    assert "3 hours later" in user["content"] and f"pr_ms: {float(pairs.pre['pr_ms'][0]):.0f}" in user["content"]
    assert "no drug" in ask(given(pairs._replace(drug=torch.tensor([0]))), 0)[1]["content"]
    assert ask(given(pairs), 0, "continue").endswith("\nheart_rate_bpm:")


def test_answers_become_charts_and_the_rest_is_counted():
    pairs = drawn("test", 100).take(slice(3))

    def backend(prompts):
        assert len(prompts) == 3
        return [TABLE, "I cannot say.", RuntimeError("no server")]

    rival = LanguageRival(backend, "stub")
    found = rival.sample(given(pairs), key=pairs.key, samples=2)
    assert (rival.asked, rival.unanswered, rival.failed) == (3, 2, 1)
    assert found.chart["pr_ms"][:, 0].tolist() == pytest.approx([170.0, 170.0], abs=0.1)
    assert torch.allclose(found.chart["pr_ms"][0, 1:], pairs.pre["pr_ms"][1:], atol=0.2)
    assert torch.equal(found.beat[1, 1:], pairs.pre_beat[1:])
    bent = (found.beat[1, 0] - pairs.pre_beat[0]).abs().amax(0)
    assert float(bent[:J_POINT].max()) == 0 < float(bent[J_POINT:].max())  # of the T wave that the answer says


def test_a_table_gone_on_with_is_cut_where_it_ends():
    pairs = drawn("test", 100).take(slice(1))
    text = TABLE.removeprefix("heart_rate_bpm:") + "\nAnother patient:\nheart_rate_bpm: 80"
    rival = LanguageRival(lambda prompts: [text], "stub", "continue")
    found = rival.sample(given(pairs), key=pairs.key, samples=1)
    assert rival.unanswered == 0 and float(found.chart["heart_rate_bpm"][0, 0]) == pytest.approx(61.0, abs=0.1)
    with pytest.raises(ValueError, match="style='talk'"):
        LanguageRival(lambda prompts: [], "stub", "talk")


def test_a_transformers_folder_answers(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    words = {w: i for i, w in enumerate(["[UNK]", "[EOS]", "pr_ms", ":", "170"])}
    tokenizer = Tokenizer(models.WordLevel(words, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="[EOS]").save_pretrained(tmp_path)
    config = Qwen2Config(vocab_size=5, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                         num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=512)  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(tmp_path)
    pairs = drawn("test", 100).take(slice(2))
    rival = LanguageRival(transformers_folder(tmp_path, max_tokens=4), "tiny")
    rival.sample(given(pairs), key=pairs.key, samples=1)
    assert (rival.asked, rival.unanswered, rival.failed) == (2, 2, 0)
    with pytest.raises(ValueError, match="holds no causal model"):
        transformers_folder(tmp_path / "nothing")
