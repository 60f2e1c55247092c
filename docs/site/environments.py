"""Pages of the environments: the docstring of the class, what is registered, the spaces as made, an episode."""

from __future__ import annotations

import importlib
import inspect
import tempfile
from pathlib import Path
from typing import Any

import gymnasium

from clinenv.registration import ENVIRONMENTS, TEAMS, make_team
from docs.site.links import Links
from tests import mimic_example

__all__ = ["SECTIONS", "class_of", "docstring_of", "generate", "pages", "recorded_stays"]

SECTIONS = ("Description", "Episode End", "Version History")  # what no page may lack
SPACES = ("Action Space", "Observation Space", "Rewards", "Starting State", "Arguments")


def pages() -> dict[str, str]:
    """File of an environment's class -> the page of the (first) id that it makes."""
    found: dict[str, str] = {}
    for row in (*ENVIRONMENTS, *TEAMS):
        module = (row.get("entry_point") or row["parallel"]).partition(":")[0]
        found.setdefault(module.replace(".", "/") + ".py", f"environments/{row['id']}")
    return found


def recorded_stays(folder: Path) -> Path:
    """A MEDS file of two made-up stays in the layout of MIMIC-IV's demo, for `EHRReplay-v0`."""
    path = folder / "meds.parquet"
    mimic_example.as_meds("new").to_parquet(path)
    return path


def generate(links: Links) -> dict[str, str]:
    """Page -> text: one for every id, and the list of them."""
    found = {"environments/index": _index()}
    for row in ENVIRONMENTS:
        found[f"environments/{row['id']}"] = _page(row, row["entry_point"], _single_facts(row))
    for row in TEAMS:
        found[f"environments/{row['id']}"] = _page(row, row["parallel"], _team_facts(row))
    return {page: links.rewrite(text, "docs/site/environments.py") for page, text in found.items()}


def class_of(entry_point: str) -> type:
    module, _, name = entry_point.partition(":")
    found: type = getattr(importlib.import_module(module), name)
    return found


def docstring_of(made: type) -> tuple[type, str]:
    """The class whose docstring is the page, and the docstring: of a variant in one line, that of the class it names.

    Raises:
        ValueError: a section is missing.
    """
    text = inspect.getdoc(made) or ""
    if "## Description" in text:
        for section in (*SECTIONS, *(SPACES if "## Agents" not in text else ())):
            if f"## {section}" not in text:
                raise ValueError(f"{made.__module__}.{made.__name__}: its docstring has no section '## {section}'")
        return made, text
    named = next(word for word in text.replace("`", " ").replace(":", " ").split() if word.endswith("Env"))
    return docstring_of(getattr(importlib.import_module(made.__module__), named))


def _page(row: dict[str, Any], entry_point: str, facts: list[tuple[str, str]]) -> str:
    made = class_of(entry_point)
    written, text = docstring_of(made)
    variant = ""
    if written is not made:
        variant = f"{_as_page(inspect.getdoc(made) or '')}\n\nWhat follows is the page of both forms.\n\n"
    table = "\n".join(f"| {name} | {value} |" for name, value in facts)
    return f"# {row['id']}\n\n{_film(row['id'])}{variant}| Registered | |\n|---|---|\n{table}\n\n{_as_page(text)}\n"


def _as_page(docstring: str) -> str:
    """Headings one level below the title, as they are; wide tables scroll by themselves."""
    return docstring.replace("`EHRWardEnv`", "[`EHRWard-v0`](/environments/EHRWard-v0.md)").replace(
        "`ECGDrugEnv`", "[`ECGDrug-v0`](/environments/ECGDrug-v0.md)"
    )


def _film(name: str) -> str:
    path = Path(__file__).parent / "films" / f"{name}.gif"
    if not path.exists():
        return ""
    return (
        f"```{{figure}} /pictures/{path.name}\n:alt: an episode of {name}\n:class: film\n\nAn episode: a simulated "
        "patient, treated by a rule. Made by `python -m docs.site.films`.\n```\n\n"
    )


def _space(space: gymnasium.Space) -> str:
    """A space in one line; a Box by its shape and the least and greatest of its bounds."""
    if isinstance(space, gymnasium.spaces.Box):
        return f"`Box({space.low.min():g}, {space.high.max():g}, {space.shape}, {space.dtype})`"
    return f"`{space}`"


def _single_facts(row: dict[str, Any]) -> list[tuple[str, str]]:
    """What is registered, and the spaces of the environment as it is made by default."""
    with tempfile.TemporaryDirectory() as folder:
        stays = {"stays": str(recorded_stays(Path(folder)))} if row["id"] == "EHRReplay-v0" else {}
        env = gymnasium.make(row["id"], **stays)
        world = env.unwrapped.world
        facts = [
            ("made by", f'`gymnasium.make("{row["id"]}"{", stays=FOLDER" if stays else ""})`'),
            (
                "for many patients",
                f'`gymnasium.make_vec("{row["id"]}", num_envs=N, vectorization_mode="vector_entry_point")`',
            ),
            ("action space", _space(env.action_space)),
            ("observation space", _space(env.observation_space)),
            (
                "steps at most",
                f"{row['max_episode_steps']}, of {world.hours_per_step:g} h"
                if world.hours_per_step < 100
                else f"{row['max_episode_steps']}",
            ),
            ("default world", f"[`{row['kwargs']['world']}`](/worlds/{row['kwargs']['world']}.md)"),
            ("entry point", f"`{row['entry_point']}`"),
            ("vector entry point", f"`{row['vector_entry_point']}`"),
        ]
        env.close()
    return facts


def _team_facts(row: dict[str, Any]) -> list[tuple[str, str]]:
    team = make_team(row["id"])
    spaces = [(f"action space, {agent}", _space(team.action_space(agent))) for agent in team.possible_agents]
    spaces += [(f"observation space, {agent}", _space(team.observation_space(agent))) for agent in team.possible_agents]
    team.close()
    forms = ", ".join(f'`"{form}"`' for form in row if form not in ("id", "kwargs"))
    return [
        ("made by", f'`clinenv.make_team("{row["id"]}", form="parallel")`'),
        ("forms", forms),
        *spaces,
        ("default world", f"[`{row['kwargs']['world']}`](/worlds/{row['kwargs']['world']}.md)"),
    ]


def _index() -> str:
    """The list of ids with their first sentence, and the contents."""
    rows = []
    for row in (*ENVIRONMENTS, *TEAMS):
        entry = row.get("entry_point") or row["parallel"]
        text = inspect.getdoc(class_of(entry)) or ""
        _, _, description = text.partition("## Description\n")
        first = " ".join((description or text).split("\n\n")[0].split())
        rows.append(f"| [{row['id']}](/environments/{row['id']}.md) | {first} |")
    names = "\n".join(row["id"] for row in (*ENVIRONMENTS, *TEAMS))
    return (
        "# Environments\n\nAll are simulations, for research alone: **not for clinical use**. Spaces, units, rewards, "
        "arguments and history are on the page of each.\n\n"
        f"| id | what happens in it |\n|---|---|\n{chr(10).join(rows)}\n\n"
        "Arguments that all take: {py:class}`clinenv.settings.Settings`.\n\n"
        f"```{{toctree}}\n:hidden:\n\n{names}\n```\n"
    )
