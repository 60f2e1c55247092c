"""The earlier name of `world_models.data.ecg.monolith`, as documents and notebooks give it."""

from world_models.data.ecg.monolith import *  # noqa: F403 - all that it exports
