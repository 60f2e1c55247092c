"""The literal table of environments: id, where it lives, its time limit, its arguments, and the weights it stands for.

Strings only, so that `import clinenv` stays light. The version in an id means these weights: after the first release
on a package index the number after `-v` changes with them; until then docs/log.md tells of a change (docs/versions.md).
"""

from __future__ import annotations

import importlib
from typing import Any

import gymnasium

__all__ = ["ENVIRONMENTS", "TEAMS", "WARD_WORLD", "WEIGHTS_SHA256", "make_team", "register"]

# The seal of weights/<name> (SHA-256 over config and weights: `world_models.checkpoint`), for every learned world an id
# may start by its name, and for the frozen risk predictor and the inverse dynamics. An environment refuses a folder
# with another; a world that is not listed (an oracle without weights, a folder, an object) is not checked.
WEIGHTS_SHA256: dict[str, str] = {
    "ecg-wm-small": "bbb7365b5ecdad0893d1c3111df9e25e0d4ccdf90920264bb1aaf48857f0619d",
    "ehr-ward-small": "4da8499b692be86bae54345a8e02bef14d3f102b72a3687baac9a0b9004eab0d",
    "ehr-mimic-demo-small": "c70f3e02aec83dffeac672577d0db135bef014316150d0a263ee257747cb5e6c",
    "ehr-icu-small": "976b1fbfec228e20b00312d142a707d19990176951cb6bf38e049a6290de70a0",
    "ehr-icu-hourly-small": "bee6b3749ee33a4e979e50b642f32cb2998614350777c22be9c1190b764b7233",
    "cardiac-jepa-small": "d63d51027117d2c640cc1f13154761a311e2f4c12bdc4d8d2e10be93d1aaaaa0",
    "ecg-risk-small": "d5bed2e13a98ed42d888eb51774f512bece79f466e00be9c25b2762a1ba7d9aa",  # no world: `recommend`
    "ecg-inverse-small": "a34fe07b920830d2f549f0a42bb831e72129bea03d88b0a07b1dbfc0a469f8c3",  # no world: inverse
    "progression-oracle": "d63d51027117d2c640cc1f13154761a311e2f4c12bdc4d8d2e10be93d1aaaaa0",  # its reader's
}

WARD_WORLD = "ehr-ward-small"  # in which a ward environment is made when no world is named

ENVIRONMENTS: tuple[dict, ...] = (
    {
        "id": "ECGDrug-v0",
        "entry_point": "clinenv.envs.ecg_drug.env:ECGDrugEnv",
        "vector_entry_point": "clinenv.envs.ecg_drug.env:ECGDrugVectorEnv",
        "max_episode_steps": 24,  # 48 h in steps of 2 h
        "kwargs": {"world": "ecg-wm-small"},
    },
    {
        "id": "ECGDrugContinuous-v0",
        "entry_point": "clinenv.envs.ecg_drug.env:ECGDrugContinuousEnv",
        "vector_entry_point": "clinenv.envs.ecg_drug.env:ECGDrugContinuousVectorEnv",
        "max_episode_steps": 24,
        "kwargs": {"world": "ecg-wm-small"},
    },
    # 14 days in steps of four hours, the shipped worlds' own. A world that makes shorter steps (hours_per_step) needs
    # more of them: the environment warns, and says which max_episode_steps to pass as well.
    {
        "id": "EHRWard-v0",
        "entry_point": "clinenv.envs.ehr_ward.env:EHRWardEnv",
        "vector_entry_point": "clinenv.envs.ehr_ward.env:EHRWardVectorEnv",
        "max_episode_steps": 84,
        "kwargs": {"world": WARD_WORLD},
    },
    {
        "id": "EHRWardDose-v0",
        "entry_point": "clinenv.envs.ehr_ward.env:EHRWardDoseEnv",
        "vector_entry_point": "clinenv.envs.ehr_ward.env:EHRWardDoseVectorEnv",
        "max_episode_steps": 84,
        "kwargs": {"world": WARD_WORLD},
    },
    {
        "id": "EHRReplay-v0",
        "entry_point": "clinenv.envs.ehr_ward.replay:EHRReplayEnv",
        "vector_entry_point": "clinenv.envs.ehr_ward.replay:EHRReplayVectorEnv",
        "max_episode_steps": 84,
        "kwargs": {"world": "ehr-mimic-demo-small"},
    },
    # Ten years of visits: at most 120, for the shortest interval is a month.
    {
        "id": "ECGProgression-v0",
        "entry_point": "clinenv.envs.ecg_progression.env:ECGProgressionEnv",
        "vector_entry_point": "clinenv.envs.ecg_progression.env:ECGProgressionVectorEnv",
        "max_episode_steps": 120,
        "kwargs": {"world": "cardiac-jepa-small"},
    },
    {
        "id": "ECGExplain-v0",
        "entry_point": "clinenv.envs.ecg_explain.env:ECGExplainEnv",
        "vector_entry_point": "clinenv.envs.ecg_explain.env:ECGExplainVectorEnv",
        "max_episode_steps": 8,
        "kwargs": {"world": "cardiac-jepa-small"},
    },
)

# Environments of several agents, which Gymnasium's registry does not take: see `make_team`. The entry point of each
# form, and the arguments of all.
TEAMS: tuple[dict, ...] = (
    {
        "id": "CareTeam-v0",
        "parallel": "clinenv.envs.care_team.team_env:CareTeamEnv",
        "aec": "clinenv.envs.care_team.team_env:env",
        "vector": "clinenv.envs.care_team.vector_env:CareTeamVectorEnv",
        "kwargs": {"world": WARD_WORLD},
    },
    {
        "id": "CareTeamDose-v0",
        "parallel": "clinenv.envs.care_team.team_env:CareTeamDoseEnv",
        "aec": "clinenv.envs.care_team.team_env:dose_env",
        "vector": "clinenv.envs.care_team.vector_env:CareTeamDoseVectorEnv",
        "kwargs": {"world": WARD_WORLD},
    },
)


def make_team(id: str, form: str = "parallel", **arguments: Any) -> Any:
    """An environment of several agents, as `gymnasium.make` makes those of one.

    Args:
        id: of `TEAMS`.
        form: "parallel" (PettingZoo's ParallelEnv), "aec" (its AECEnv), or "vector" (many patients as one batch).
        arguments: of the environment.

    Raises:
        ValueError: an unknown id or form; the message names the choices. And what the environment raises.
    """
    row = next((row for row in TEAMS if row["id"] == id), None)
    if row is None:
        raise ValueError(f"no team environment {id!r}; there are: {', '.join(row['id'] for row in TEAMS)}")
    forms = [name for name in row if name not in ("id", "kwargs")]
    if form not in forms:
        raise ValueError(f"form {form!r} is unknown; choose one of {', '.join(forms)}")
    module, _, name = row[form].partition(":")
    return getattr(importlib.import_module(module), name)(**{**row["kwargs"], **arguments})


def register() -> None:
    """Put every id of the table into Gymnasium's registry; a second call changes nothing."""
    for row in ENVIRONMENTS:
        if row["id"] not in gymnasium.registry:
            gymnasium.register(**row)
