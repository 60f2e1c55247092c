"""Every world the contract is proved on, and how exactly its rows must agree."""

from __future__ import annotations

from typing import Any

import pytest

from tests.toy_progression import ToyClinic
from tests.toy_world import ToyWorld
from world_models import catalog

# name -> (relative, absolute) tolerance of "row i equals the same patient alone"; 0: not by one bit
EXACTNESS = {"toy": (0.0, 0.0), "oracle": (0.0, 0.0), "ecg-wm-small": (1e-4, 1e-3)}
ALSO = {"toy": ("ecg_mv", "latent"), "oracle": ("ecg_mv",), "ecg-wm-small": ("latent",)}
IDS = ("ECGDrug-v0", "ECGDrugContinuous-v0")


def world_named(name: str) -> Any:
    """The world, or a skip that says what is missing."""
    if name == "toy":
        return ToyWorld()
    if catalog.WORLDS[name].weights and not (catalog.weights_folder(name) / "model.safetensors").is_file():
        pytest.skip(f"world {name} has no weights here; train it first")
    return catalog.load(name)


# The clinics of ECGProgression-v0 and ECGExplain-v0, likewise.
CLINICS = {"toy-clinic": (0.0, 0.0), "progression-oracle": (1e-4, 1e-3), "cardiac-jepa-small": (1e-4, 1e-3)}


def clinic_named(name: str) -> Any:
    """The clinic, or a skip that says what is missing."""
    if name == "toy-clinic":
        return ToyClinic()
    if name not in catalog.WORLDS:
        pytest.skip(f"world {name} is not in the catalogue")
    for needed in {name, "cardiac-jepa-small"} & set(catalog.WORLDS):  # whose encoder the oracle is seen through
        if catalog.WORLDS[needed].weights and not (catalog.weights_folder(needed) / "model.safetensors").is_file():
            pytest.skip(f"world {needed} has no weights here; train it first")
    return catalog.load(name)
