"""The earlier name of `world_models.data.ehr.meds.writer`, as documents and notebooks give it."""

from world_models.data.ehr.meds.writer import (
    is_episode_file,
    read_episodes,
    to_table,
    trajectory_table,
    write_episodes,
    write_table,
    write_trajectories,
)

__all__ = [
    "is_episode_file",
    "read_episodes",
    "to_table",
    "trajectory_table",
    "write_episodes",
    "write_table",
    "write_trajectories",
]
