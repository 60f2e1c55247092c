"""The literal table of environments: id, where it lives, its time limit, its arguments, and the weights it stands for.

Strings only, so that `import clinenv` stays light. The version in an id means these weights: change the weights and
the number after `-v` must change with them.
"""

from __future__ import annotations

import gymnasium

__all__ = ["ENVIRONMENTS", "WARD_WORLD", "WEIGHTS_SHA256", "register"]

# SHA-256 of weights/<name>/model.safetensors, for every learned world an id may start by its name. An environment
# refuses weights with another sum; a world that is not listed (an oracle, a folder, an object) is not checked.
WEIGHTS_SHA256: dict[str, str] = {
    "ecg-wm-small": "cf168f93bfaf6bc88878f22d5f8612ba4c6213203c8e6b25a2edda698c41517f",
    "ehr-ward-small": "3d431a927b855201c43e49b2b55485d27201591a24e61e374149881392501109",
    "ehr-mimic-demo-small": "cc1bfbf303a43a73cb67e03c7c6ed89aa5842f1d3c06986d74ff7b652f9baa62",
    "cardiac-jepa-small": "56a72eaf8e8de490cce772141c9c57d762951f5567c461d4521e593c2e3b5565",
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


def register() -> None:
    """Put every id of the table into Gymnasium's registry; a second call changes nothing."""
    for row in ENVIRONMENTS:
        if row["id"] not in gymnasium.registry:
            gymnasium.register(**row)
