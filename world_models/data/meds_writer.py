"""The earlier name of `world_models.data.ehr.meds.writer`, as documents and notebooks give it."""

from world_models.data.ehr.meds.writer import *  # noqa: F403 - all that it exports
