"""What ships: whether every weights' folder is whole and the released one, and whether every id can be stepped."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clinenv.commands.doctor.finding import Finding

__all__ = ["steps", "weights"]

_REMEDY = "install clinenv again: an id stands for its released weights"


def weights(folder: Path | None = None) -> Iterator[Finding]:
    """The seal of every folder with weights, worked out anew, against the one that is registered.

    Args:
        folder: with the folders; None: what is installed.
    """
    from clinenv.registration import WEIGHTS_SHA256
    from world_models import catalog, checkpoint

    folder = catalog.weights_folder("ecg-wm-small").parent if folder is None else folder
    good = 0
    for name, registered in WEIGHTS_SHA256.items():
        if name in catalog.WORLDS and catalog.WORLDS[name].weights is None:
            continue  # a reader's, which is listed under its own name
        try:
            found = checkpoint.sha256(folder / name)
        except (OSError, ValueError) as error:
            yield Finding(f"weights {name}", "wrong", str(error), _REMEDY)
            continue
        if found != registered:
            yield Finding(f"weights {name}", "wrong", f"bear the seal {found}, registered: {registered}", _REMEDY)
            continue
        good += 1
    yield (
        Finding("weights", "ok", f"{good} folders, each whole and the released one")
        if good
        else Finding("weights", "wrong", f"none is good in {folder}", _REMEDY)
    )


def steps() -> Iterator[Finding]:
    """A reset and a step of every id, learned world and oracle."""
    from clinenv.registration import ENVIRONMENTS, TEAMS

    for row in ENVIRONMENTS:
        for world in (row["kwargs"]["world"], "oracle"):
            if row["id"] != "EHRReplay-v0" or world != "oracle":  # a record's hidden body nobody knows
                yield _stepped(row["id"], world, _single)
    for row in TEAMS:
        yield _stepped(row["id"], row["kwargs"]["world"], _team)


def _stepped(name: str, world: str, step: Any) -> Finding:
    began = time.perf_counter()
    try:
        step(name, world)
    except Exception as error:  # of any kind: what is broken says so in its own way
        said = f"in {world}: {type(error).__name__}: {error}"
        return Finding(name, "wrong", said, "run it in Python for the whole traceback, and report it")
    return Finding(name, "ok", f"steps in {world} ({time.perf_counter() - began:.1f} s with loading)")


def _single(name: str, world: str) -> None:
    import gymnasium

    import clinenv  # noqa: F401  (registers the ids)

    more: dict[str, Any] = {"stays": [_stay()], "hour": 4.0} if name == "EHRReplay-v0" else {}
    made: Any = gymnasium.make(name, world=world, **more)
    made.reset(seed=1)
    made.action_space.seed(1)
    observation, reward, *_ = made.step(made.action_space.sample())
    if observation not in made.observation_space or reward != reward:
        raise ValueError(f"an observation outside its space, or the reward {reward}")


def _team(name: str, world: str) -> None:
    import clinenv

    team = clinenv.make_team(name, world=world)
    team.reset(seed=1)
    team.step({agent: team.action_space(agent).sample() for agent in team.agents})


def _stay() -> Any:
    """A day's stay of nobody: age, sex and a lactate, which is as little as a record can say."""
    from datetime import datetime, timedelta

    from world_models.data.ehr.episode import InquiryEvent, build_episode

    began = datetime(2000, 1, 1)
    drawn = began + timedelta(hours=1)
    lactate = InquiryEvent("lactate", 1.4, None, drawn, drawn + timedelta(hours=1), "mmol/L", "clinenv doctor")
    return build_episode(
        subject_id=1,
        stay_id=1,
        started=began,
        admitted=began,
        discharged=began + timedelta(hours=24),
        inquiries=[lactate],
        age_years=60.0,
        sex_female=True,
    )
