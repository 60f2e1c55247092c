"""The adversarial rivals learn what is easy to learn; a file of its own, for they take longest."""

from __future__ import annotations

import pytest

from tests.rivals.learning import GANS, learns_an_easy_effect


@pytest.mark.slow
@pytest.mark.parametrize("name", GANS)
def test_learns_an_easy_effect(name, tmp_path, monkeypatch):
    learns_an_easy_effect(name, tmp_path, monkeypatch)
