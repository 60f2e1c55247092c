"""Encoders and text models on disk (tiny, randomly initialised), our own query, and what wrong folders say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from world_models.ecg.lead_names import INDEPENDENT_LEADS
from world_models.ecg_wm.features import EncoderInput, load_extractor, pooled_states
from world_models.ecg_wm.query import VOCABULARY, TextModelQuery, WordQuery, query_texts, tokens
from world_models.quantities.ecg_drug import DRUGS

transformers = pytest.importorskip("transformers")
EIGHT = EncoderInput(leads=INDEPENDENT_LEADS, samples=128)


def _ecg(batch: int = 3) -> torch.Tensor:
    return torch.randn(batch, 12, 5000, generator=torch.Generator().manual_seed(2)).cumsum(-1) * 0.01


def _save(folder: Path, kind: str) -> Path:
    torch.manual_seed(1)
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    if kind == "wav2vec2":
        conv = {"conv_dim": (8, 8), "conv_stride": (4, 4), "conv_kernel": (8, 4), "num_conv_pos_embeddings": 4}
        config = transformers.Wav2Vec2Config(
            **small, **conv, num_conv_pos_embedding_groups=2, num_feat_extract_layers=2
        )
        model = transformers.Wav2Vec2Model(config)
    elif kind == "patchtst":
        config = transformers.PatchTSTConfig(
            num_input_channels=8, context_length=128, patch_length=16, patch_stride=16, d_model=16, ffn_dim=16,
            num_hidden_layers=1, num_attention_heads=2,
        )  # fmt: skip
        model = transformers.PatchTSTModel(config)
    elif kind == "vit":
        model = transformers.ViTModel(transformers.ViTConfig(**small, image_size=32, patch_size=8))
    else:
        model = transformers.BertModel(transformers.BertConfig(**small, vocab_size=40))
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("kind", "wants"), [("wav2vec2", None), ("patchtst", EIGHT), ("vit", None)])
def test_a_hugging_face_encoder_on_disk_gives_features(tmp_path: Path, kind: str, wants: EncoderInput | None) -> None:
    ecg = _ecg(40)
    extractor = load_extractor(_save(tmp_path / kind, kind), wants)
    raw = extractor(ecg, 500.0)
    assert raw.shape[0] == 40 and raw.ndim == 2 and not raw.requires_grad and raw.std(0).max() > 0
    h = extractor.fitted(ecg)(ecg)
    assert h.mean(0).abs().max() < 1e-2 and abs(float(h.std(0, unbiased=False).median()) - 1) < 1e-2
    alone = torch.cat([extractor(row[None], 500.0) for row in ecg[:3]])
    assert torch.allclose(alone, raw[:3], atol=1e-4), "rows do not mix"
    assert torch.equal(raw, load_extractor(tmp_path / kind, wants)(ecg, 500.0)), "frozen"


def test_our_jepa_and_a_module_of_ones_own() -> None:
    ecg = _ecg()
    jepa = load_extractor("cardiac-jepa-small")
    assert jepa(ecg, 500.0).shape[0] == 3
    with pytest.raises(ValueError, match="leave `wants` out"):
        load_extractor("cardiac-jepa-small", EIGHT)
    module = nn.Conv1d(2, 5, 3)
    wants = EncoderInput(250.0, 400, ("V1", "I"), "mean+std", -1)
    own = load_extractor(module, wants)
    assert own(ecg, 500.0).shape == (3, 10) and not module.weight.requires_grad
    with pytest.raises(ValueError, match="lead_repair"):
        own(torch.full((1, 12, 5000), torch.nan), 500.0)
    with pytest.raises(ValueError, match=r"\[B, 12, T\]"):
        own(ecg[:, :8], 500.0)
    with pytest.raises(ValueError, match="V9"):
        EncoderInput(leads=("V9",))


def test_pooling() -> None:
    states = torch.arange(12.0).reshape(1, 3, 4)
    assert pooled_states(states, "mean").tolist() == [[4, 5, 6, 7]]
    assert pooled_states(states, "max").tolist() == [[8, 9, 10, 11]]
    assert pooled_states(states, "mean+std").shape == (1, 8)
    assert pooled_states(torch.zeros(2, 8, 5, 16), "mean", 2).shape == (2, 16)
    with pytest.raises(ValueError, match="must be"):
        pooled_states(torch.zeros(3), "mean")


def test_wrong_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"):
        load_extractor(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        load_extractor(tmp_path / "empty")
    (tmp_path / "empty" / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="is not JSON"):
        load_extractor(tmp_path / "empty")
    (tmp_path / "empty" / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match="names no model_type"):
        load_extractor(tmp_path / "empty")
    text = _save(tmp_path / "bert", "bert")
    with pytest.raises(ValueError, match="fed with 'input_ids'"):
        load_extractor(text)
    picture = _save(tmp_path / "vit", "vit")
    weights = picture / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_extractor(picture)
    weights.write_bytes(whole)
    config = json.loads((picture / "config.json").read_text())
    (picture / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    with pytest.raises(ValueError, match="the weights lack"):
        load_extractor(picture)
    channels = _save(tmp_path / "patchtst", "patchtst")
    with pytest.raises(ValueError, match="takes 8 channels"):
        load_extractor(channels)
    with pytest.raises(ValueError, match="not with text"):
        (picture / "config.json").write_text(json.dumps(config))
        TextModelQuery(picture)


def _chart() -> dict[str, torch.Tensor]:
    return {
        "age_years": torch.tensor([72.0, 50.0]),
        "sex_female": torch.tensor([1.0, 0.0]),
        "weight_kg": torch.tensor([64.0, float("nan")]),
        "creatinine_clearance_ml_min": torch.tensor([55.0, 90.0]),
        "qtcf_ms": torch.tensor([412.4, 430.0]),
    }


def test_the_query_says_what_is_known() -> None:
    order = torch.zeros(2, len(DRUGS))
    order[0, DRUGS.index("dofetilide")] = 0.25
    assert query_texts(_chart(), order) == [
        "72-year-old woman, 64 kg, creatinine clearance 55 mL/min, QTcF 412 ms; dofetilide 250 ug now",
        "50-year-old man, creatinine clearance 90 mL/min, QTcF 430 ms; nothing now",
    ]
    word, value = tokens(query_texts(_chart(), order))
    assert (word[0] > 1).sum() == (word[0] > 0).sum(), "our own sentences hold no unknown word"
    assert VOCABULARY[int(word[0, 0])] == "<number>" and value[0, 0].expm1().item() == pytest.approx(72, rel=1e-5)
    assert (tokens(["a strange word"])[0] == 1).any()
    for wrong in ([""], ["word " * 200]):
        with pytest.raises(ValueError, match="tokens"):
            tokens(wrong)


def test_the_word_query_learns_a_dose() -> None:
    """A number in the text reaches the vector: a linear head on it learns the dose in twenty steps."""
    torch.manual_seed(0)
    doses = torch.rand(128) * 0.9 + 0.05
    order = torch.zeros(128, len(DRUGS))
    order[:, DRUGS.index("dofetilide")] = doses
    texts = query_texts({"age_years": torch.full((128,), 60.0)}, order)
    model, head = WordQuery(16), nn.Linear(16, 1)
    optimiser = torch.optim.Adam([*model.parameters(), *head.parameters()], lr=2e-2)
    for _ in range(60):
        loss = (head(model(texts)).squeeze(-1) - doses).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.3 * float(doses.var())
    padded = model([texts[0], "60-year-old person, 70 kg, QTcF 400 ms, sinus rhythm; nothing now"])[0]
    assert torch.allclose(padded, model([texts[0]])[0], atol=1e-5), "padding says nothing"


def test_a_text_model_on_disk(tmp_path: Path) -> None:
    folder = _save(tmp_path / "bert", "bert")
    with pytest.raises(ValueError, match="tokeniser"):
        TextModelQuery(folder)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "woman", "man", "dofetilide", "now", "nothing", ";", "mg"]
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    query = TextModelQuery(folder)
    vectors = query(["woman; dofetilide now", "man; nothing now"])
    assert vectors.shape == (2, 16) and not torch.allclose(vectors[0], vectors[1])
    assert torch.allclose(query(["man; nothing now"])[0], vectors[1], atol=1e-5)
    with pytest.raises(ValueError, match="no query"):
        query([])
