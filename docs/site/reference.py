"""The list of public modules, a page each; autodoc writes what their docstrings say."""

from __future__ import annotations

import importlib.util

from docs.site.links import Links

__all__ = ["MODULES", "generate"]

# What somebody outside of the project imports. All other modules are how it is made.
MODULES = {
    "Environments": (
        "clinenv", "clinenv.registration", "clinenv.settings", "clinenv.env", "clinenv.vector_env",
        "clinenv.ecg", "clinenv.snapshot", "clinenv.pessimism", "clinenv.worth", "clinenv.testing",
    ),
    "Tasks and simulators": (
        "clinenv.task", "clinenv.simulator", "clinenv.imagined", "clinenv.view", "clinenv.patients",
        "clinenv.envs.ecg_drug.task", "clinenv.envs.ehr_ward.task", "clinenv.envs.ecg_progression.task",
        "clinenv.envs.ecg_explain.task",
    ),
    "Doors of other libraries": (
        "clinenv.doors.torchrl", "clinenv.doors.rllib", "clinenv.doors.pufferlib", "clinenv.doors.skrl",
        "clinenv.doors.rsl_rl", "clinenv.doors.omnisafe", "agents.sb3.vec_env",
    ),
    "Worlds": (
        "world_models.protocol", "world_models.catalog", "world_models.quantity", "world_models.keys",
        "world_models.inputs", "world_models.checkpoint", "world_models.ensemble", "world_models.testing",
    ),
    "Agents": (
        "agents.protocol", "agents.rollout", "agents.expected", "agents.train", "agents.policy_agent",
        "agents.registry", "agents.making", "agents.planning.planners", "agents.planning.controller",
        "agents.planning.risk", "agents.planning.problem", "agents.planning.plan_space", "agents.planning.presets",
        "agents.baselines.ecg_rules", "agents.baselines.ward_rule", "agents.baselines.constant",
    ),
    "Data": (
        "world_models.data.ehr.load", "world_models.data.ehr.episode", "world_models.data.ecg.monolith",
        "world_models.data.ecg.wfdb.reader", "world_models.ecg.delineation.delineate",
    ),
}  # fmt: skip
# A door that needs its library when it is imported has no page where that is not installed.
NEEDS = {
    "clinenv.doors.torchrl": "torchrl",
    "clinenv.doors.rllib": "ray",
    "clinenv.doors.pufferlib": "pufferlib",
    "clinenv.doors.rsl_rl": "rsl_rl",
    "clinenv.doors.omnisafe": "omnisafe",
}


def generate(links: Links) -> dict[str, str]:
    """Page -> text: a page a module, and their list."""
    found, parts = {}, ["# API\n\nThe modules that are meant to be imported, by what they are for.\n"]
    for title, modules in MODULES.items():
        there = [name for name in modules if importlib.util.find_spec(NEEDS.get(name, name.partition(".")[0]))]
        parts.append(f"```{{toctree}}\n:caption: {title}\n:maxdepth: 1\n\n" + "\n".join(there) + "\n```\n")
        for name in there:
            found[f"api/{name}"] = (
                f"# {name}\n\n```{{eval-rst}}\n.. automodule:: {name}\n   :members:\n   :show-inheritance:\n```\n"
            )
    found["api/index"] = "\n".join(parts)
    return found
