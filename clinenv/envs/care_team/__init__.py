"""A ward patient and three people who attend to him at the same time, for PettingZoo: `parallel_env` and `env`."""

from clinenv.envs.care_team.team_env import CareTeamEnv as parallel_env
from clinenv.envs.care_team.team_env import env

__all__ = ["env", "parallel_env"]
