"""Which architectures the cache of filled rows serves: tried on a few tokens, refused with a reason; no code runs."""

from __future__ import annotations

import json
import re
import string

import pytest
import torch

from tests.ehr_world.causal_stays import stays
from world_models import keys
from world_models.ehr_world.causal_lm.grammar import LABEL, NUMBER, text_automaton
from world_models.ehr_world.causal_lm.model import CausalLM, qwen3
from world_models.ehr_world.causal_lm.probe import most_positions, reading_errors
from world_models.ehr_world.causal_lm.tokens import QuantileCodec

CODEC = QuantileCodec.fit(stays(12))
SMALL = {
    "vocab_size": CODEC.size,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 1024,
}
SHORT_NAMES = {"vocab_size": CODEC.size, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 1024}
SERVED = {
    "qwen3": {**SMALL, "head_dim": 8},
    "llama": SMALL,
    "smollm3": SMALL,  # its own special tokens lie far beyond the vocabulary
    "gpt2": SHORT_NAMES,  # places are learned vectors
    "bloom": {"vocab_size": CODEC.size, "hidden_size": 32, "n_layer": 2, "n_head": 4},  # no position_ids, and right
    "falcon": {**SMALL, "alibi": True},
    "opt": {
        "vocab_size": CODEC.size,
        "hidden_size": 32,
        "word_embed_proj_dim": 32,
        "num_hidden_layers": 2,
        "ffn_dim": 64,
        "num_attention_heads": 4,
        "max_position_embeddings": 1024,
    },
}
REFUSED = {
    "mpt": ({"vocab_size": CODEC.size, "d_model": 32, "n_layers": 2, "n_heads": 4}, "batch with a longer stay"),
    "bart": (
        {
            "vocab_size": CODEC.size,
            "d_model": 32,
            "decoder_layers": 2,
            "decoder_attention_heads": 4,
            "decoder_ffn_dim": 64,
        },
        "batch with a longer stay",
    ),
    "bert": (SMALL, "fed piece by piece"),
    "rwkv": ({"vocab_size": CODEC.size, "hidden_size": 32, "num_hidden_layers": 2}, "fed piece by piece"),
    "mamba": ({"vocab_size": CODEC.size, "hidden_size": 32, "num_hidden_layers": 2}, "needs full attention"),
    "gpt_neo": (
        {
            "vocab_size": CODEC.size,
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
        },
        "needs full attention",
    ),
    "qwen9": (SMALL, "no model can be made"),
    "llama": ({**SMALL, "num_attention_heads": 5}, "no model can be made|fed piece by piece"),
}


@pytest.mark.parametrize("kind", SERVED)
def test_a_row_reads_the_same_in_a_batch_as_alone(kind: str) -> None:
    lm = CausalLM.from_config({"model_type": kind, **SERVED[kind]}, CODEC, seed=1)
    with torch.no_grad():
        for parameter in lm.model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(8)
    assert max(reading_errors(lm)) < 1e-4
    told = stays(3)

    def logits(rows: list[int]) -> torch.Tensor:
        state = lm.start([told[r] for r in rows], keys.from_seed(5, 3)[rows])
        for t in range(3):
            state, found = lm.feed(lm.remember(state, [told[r].steps[t] for r in rows], 4.0))
        return found

    together = logits([0, 1, 2])
    for row in range(3):
        torch.testing.assert_close(together[row], logits([row])[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", REFUSED)
def test_other_architectures_are_refused_with_the_reason(kind: str) -> None:
    config, reason = REFUSED[kind]
    with pytest.raises(ValueError, match=reason):
        CausalLM.from_config({"model_type": kind, **config}, CODEC)


@pytest.mark.parametrize("config", [{}, None, {"hidden_size": 8}, []])
def test_a_config_without_a_type_is_refused(config: object) -> None:
    with pytest.raises(ValueError, match="no model_type"):
        CausalLM.from_config(config, CODEC)


def test_a_half_precision_model_is_held_to_its_own_rounding() -> None:
    lm = CausalLM.from_config(qwen3(CODEC.size, 32, 2, 4), CODEC, seed=1)
    CausalLM(lm.model.to(torch.bfloat16), CODEC)
    from transformers import AutoConfig, AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("mpt", **REFUSED["mpt"][0])).eval()
    with pytest.raises(ValueError, match="longer stay"):
        CausalLM(model.to(torch.bfloat16), CODEC)


def test_places_end_where_longrope_would_turn_all_rows() -> None:
    from transformers import AutoConfig

    rope = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
    rope |= {"original_max_position_embeddings": 256, "rope_theta": 10_000.0}
    assert most_positions(AutoConfig.for_model("llama", **SMALL, rope_parameters=rope)) == 256
    assert most_positions(AutoConfig.for_model("llama", **SMALL)) == 1024


def test_nothing_on_disk_is_run_or_unpickled(tmp_path) -> None:  # noqa: ANN001
    lm = CausalLM.from_config(qwen3(CODEC.size, 32, 2, 4), CODEC, seed=1)
    lm.save(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    told = {"auto_map": {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"}, "model_type": "own"}
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass C: pass\nclass M: pass\n")
    (tmp_path / "config.json").write_text(json.dumps({**settings, **told}))
    with pytest.raises(ValueError, match="cannot be loaded"):
        CausalLM.from_folder(tmp_path)
    assert not (tmp_path / "ran").exists()
    (tmp_path / "config.json").write_text(json.dumps(settings))
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="cannot be loaded"):
        CausalLM.from_folder(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="pytorch_model.bin.*safetensors"):
        CausalLM.from_folder(tmp_path)
    (tmp_path / "pytorch_model.bin").unlink()
    with pytest.raises(FileNotFoundError, match="holds no model"):
        CausalLM.from_folder(tmp_path)


def test_an_adapter_that_would_be_unpickled_is_refused(tmp_path) -> None:  # noqa: ANN001
    pytest.importorskip("peft")
    CausalLM.from_config(qwen3(CODEC.size, 32, 2, 4), CODEC, seed=1).save(tmp_path / "base")
    adapter = {"peft_type": "LORA", "base_model_name_or_path": str(tmp_path / "base")}
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(adapter))
    (tmp_path / "adapter" / "adapter_model.bin").write_bytes(b"cos\nsystem\n")
    with pytest.raises(ValueError, match="adapter_model.bin.*safetensors"):
        CausalLM.from_folder(tmp_path / "adapter", codec=CODEC)


# ------------------------------------------------------------------ the grammar of an outcome, character by character

CHARACTERS = sorted(set(string.printable) - {"\x0b", "\x0c"} | {"ä", "µ", "\u2028"})
RIGHT = {  # exponents are negative: the tables end at 1e6
    NUMBER: re.compile(r"-?[0-9]{1,9}(\.[0-9]{1,6})?(e-[0-9]{1,2})?\n"),
    LABEL: re.compile(r'"([^"\\|\r\n]|\\[\\nrpq])*"\n'),
}
WRITTEN = {
    NUMBER: ["0\n", "-12.5\n", "123456789.123456e-12\n", "7e-3\n"],
    LABEL: ['""\n', '"no growth"\n', '"a\\\\b \\n\\r\\p\\q µ"\n'],
}


@pytest.mark.parametrize("kind", RIGHT)
def test_a_change_of_one_character_is_taken_only_where_the_result_is_an_outcome(kind: str) -> None:
    automaton = text_automaton(CHARACTERS)
    number = {c: i for i, c in enumerate(CHARACTERS)}
    taken = refused = 0
    for text in WRITTEN[kind]:
        changes = {text}
        for place in range(len(text) + 1):
            changes.add(text[:place] + text[place + 1 :])
            changes.add(text[:place])
            for c in CHARACTERS:
                changes |= {text[:place] + c + text[place:], text[:place] + c + text[place + 1 :]}
        for changed in changes:
            right = RIGHT[kind].fullmatch(changed) is not None
            assert automaton.accepts(kind, (number[c] for c in changed)) == right, repr(changed)
            taken, refused = taken + right, refused + (not right)
    assert taken > 100 and refused > 1000
