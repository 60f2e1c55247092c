"""The earlier name of `world_models.data.ecg.wfdb.reader`, as documents and notebooks give it."""

from world_models.data.ecg.wfdb.reader import *  # noqa: F403 - all that it exports
