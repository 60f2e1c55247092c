"""The header of a card: made of what the card says, the same every time, and fresh on every card that ships."""

from __future__ import annotations

import pytest

from world_models import refresh_cards
from world_models.card_header import header, header_of, with_header, without_header
from world_models.checkpoint import CARD

yaml = pytest.importorskip("yaml")


def test_the_cards_that_ship_are_fresh() -> None:
    assert not refresh_cards.stale(), "python -m world_models.refresh_cards renews them"


def test_every_shipped_header_is_yaml_that_names_licence_library_and_data() -> None:
    found = {}
    for path in sorted(refresh_cards.SHIPPED.glob(f"*/{CARD}")):
        text = path.read_text(encoding="utf-8")
        found[path.parent.name] = yaml.safe_load(text.split("---\n")[1])
        assert without_header(text).startswith(f"# {path.parent.name}\n")
    assert len(found) == 8
    assert all(one["library_name"] == "clinenv" and "not-for-clinical-use" in one["tags"] for one in found.values())
    assert found["ehr-icu-small"]["license"] == "odbl" and found["ehr-mimic-demo-small"]["license"] == "odbl"
    assert "physionet-mimic-iv-demo" not in found["ehr-icu-small"]["datasets"], "it is test data there"
    assert found["ehr-ward-small"]["license"] == "apache-2.0" and "datasets" not in found["ehr-ward-small"]
    assert "physionet-ptb-xl" in found["ecg-wm-small"]["datasets"]


def test_a_header_is_replaced_not_added_to() -> None:
    card = "# A\n\nLearned from LUDB 1.0.1.\n\n---\n\nAUROC 0.8\n"
    once = with_header(card, {"kind": "cardiac-jepa"})
    assert with_header(once, {"kind": "cardiac-jepa"}) == once and without_header(once) == card
    assert header_of(card, {})["datasets"] == ["physionet-ludb"] and header_of(card, {})["metrics"] == ["roc_auc"]


def test_any_value_comes_back_from_yaml() -> None:
    values = {"a": "no", "b": ["x: y", "# z", "plain-text", "1.0", ""], "c": True, "d": 'say "so"'}
    assert yaml.safe_load(header(values).strip().strip("-")) == values
