"""The literal table of environments: id, where it lives, its time limit, its arguments, and the weights it stands for.

Strings only, so that `import clinenv` stays light. The version in an id means these weights: change the weights and
the number after `-v` must change with them.
"""

from __future__ import annotations

import gymnasium

__all__ = ["ENVIRONMENTS", "WARD_WORLD", "WEIGHTS_SHA256", "register"]

# The seal of weights/<name> (SHA-256 over config and weights: `world_models.checkpoint`), for every learned world an id may
# start by its name. An environment refuses a folder with another; a world that is not listed (an oracle, a folder, an
# object) is not checked.
WEIGHTS_SHA256: dict[str, str] = {
    "ecg-wm-small": "7902822c9c0a3853c817a6e9bc698ff19cb3b610d1865ae7dbec1d958fb18103",
    "ehr-ward-small": "7806c196badbaf1c94146b7ccd47083518891883401e37b68651994fbf376e9f",
    "ehr-mimic-demo-small": "26cf20390eb3d2da867ae1ae2d460e1b86d44058d476e5659757aaf3034c23dc",
    "cardiac-jepa-small": "f8df294e562eb0c18ddbe72603dfa01caf9dc82f3d8fb4b5c846b3d9c44ee1bf",
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
    # The ward's environments end by themselves after 14 days: how many steps that is depends on hours_per_step.
    {
        "id": "EHRWard-v0",
        "entry_point": "clinenv.envs.ehr_ward.env:EHRWardEnv",
        "vector_entry_point": "clinenv.envs.ehr_ward.env:EHRWardVectorEnv",
        "max_episode_steps": None,
        "kwargs": {"world": WARD_WORLD},
    },
    {
        "id": "EHRWardDose-v0",
        "entry_point": "clinenv.envs.ehr_ward.env:EHRWardDoseEnv",
        "vector_entry_point": "clinenv.envs.ehr_ward.env:EHRWardDoseVectorEnv",
        "max_episode_steps": None,
        "kwargs": {"world": WARD_WORLD},
    },
    {
        "id": "EHRReplay-v0",
        "entry_point": "clinenv.envs.ehr_ward.replay:EHRReplayEnv",
        "vector_entry_point": "clinenv.envs.ehr_ward.replay:EHRReplayVectorEnv",
        "max_episode_steps": None,
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


def register() -> None:
    """Put every id of the table into Gymnasium's registry; a second call changes nothing."""
    for row in ENVIRONMENTS:
        if row["id"] not in gymnasium.registry:
            gymnasium.register(**row)
