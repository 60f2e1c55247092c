"""The earlier name of `world_models.data.ehr.load`, as documents and notebooks give it."""

from world_models.data.ehr.load import load_episodes

__all__ = ["load_episodes"]
