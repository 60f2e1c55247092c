"""The earlier name of `world_models.data.ehr.load`, as documents and notebooks give it."""

from world_models.data.ehr.load import *  # noqa: F403 - all that it exports
