"""EHRReplay-v0: the class docstring is the page of the environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clinenv.assemble import WorldLike, load_world
from clinenv.env import ClinicalEnv
from clinenv.envs.ehr_ward.recorded_stays import RecordedStays
from clinenv.envs.ehr_ward.task import EHRWardTask
from clinenv.vector_env import ClinicalVectorEnv
from world_models.data.ehr.episode import PatientEpisode
from world_models.protocol import History, WorldModel

__all__ = ["EHRReplayEnv", "EHRReplayVectorEnv"]

_WORLD = "ehr-mimic-demo-small"


class EHRReplayEnv(ClinicalEnv):
    """
    ## Description
    A real stay, as it was recorded, up to an hour of your choice; from there it is yours. The chart at the branching
    point is the record's, value for value; what follows is what a learned world believes of a patient with this record.
    **Not for clinical use**: the future that is shown is a model's, not the patient's.

    ## Action Space
    As in `EHRWard-v0`: `MultiBinary(69)`, or with `action="multidiscrete"` `MultiDiscrete([2] * 69)`, with
    `info["action_mask"]` and refusals.

    ## Observation Space
    As in `EHRWard-v0`: `Box(229,)`, "events" or "text". What a record does not say (weight, why the patient came) is
    what the world makes of it.

    ## Rewards
    As in `EHRWard-v0`.

    ## Starting State
    A stay drawn from the seed, among those that last a step beyond `hour`.
    `reset(options={"stay_id": STAY, "hour": 48})` says which, and from where; `env.unwrapped.record()` gives the
    record up to there.

    ## Episode End
    Terminated by death or discharge in the model; truncated 14 days after the branching point.

    ## Arguments
    ```python
    import gymnasium, clinenv
    gymnasium.make("EHRReplay-v0", stays=FOLDER, hour=24, world="ehr-mimic-demo-small", observation="chart",
                   render_mode=None)
    ```
    - `stays`: a MEDS folder or file; {"eicu": DIR}, {"mimic3": DIR}, {"challenge2012": DIR} or {"challenge2019": FILE};
      or a list of `world_models.data.ehr.episode.PatientEpisode`.
    - `hour`: since the stay's start, a whole number of steps.
    - `world`: a learned ward, by name, folder or object. An oracle cannot go on from a record.
    - all others as in `EHRWard-v0`; `patients` and `cohort` do not apply.

    ## Version History
    * v0: first version.
    """

    def __init__(
        self,
        stays: str | Path | Mapping[str, Any] | Sequence[PatientEpisode] | None = None,
        hour: float = 24.0,
        task: EHRWardTask | None = None,
        world: WorldLike = _WORLD,
        **arguments: Any,
    ) -> None:
        task = EHRWardTask() if task is None else task
        world, self._stays = _recorded(task, world, stays, hour, arguments)
        super().__init__(task, world, patients=self._stays, **arguments)
        self._record: tuple[int, History] | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As `ClinicalEnv.reset`; `options` may hold "stay_id" and "hour"."""
        observation, info = super().reset(seed=seed, options=options)
        ids, history = self._stays.record(self.state.key, self._episodes.start)
        self._record = ids[0], history
        if self._trend is not None:
            self._trend.precede(history)
        return observation, info

    def record(self) -> tuple[int, History]:
        """Stay id of the patient of the last reset, and the record (a batch of one) up to the branching point.

        Raises:
            ValueError: before the first reset.
        """
        if self._record is None:
            raise ValueError("there is no patient yet; call reset() first")
        return self._record


class EHRReplayVectorEnv(ClinicalVectorEnv):
    """`EHRReplay-v0` for many stays at once: see `EHRReplayEnv`. A reset's stay_id and hour hold for the rows it
    starts; rows that begin anew by themselves are any of the stays again."""

    def __init__(
        self,
        num_envs: int = 1,
        stays: str | Path | Mapping[str, Any] | Sequence[PatientEpisode] | None = None,
        hour: float = 24.0,
        task: EHRWardTask | None = None,
        world: WorldLike = _WORLD,
        **arguments: Any,
    ) -> None:
        task = EHRWardTask() if task is None else task
        world, recorded = _recorded(task, world, stays, hour, arguments)
        super().__init__(task, num_envs, world, patients=recorded, **arguments)


def _recorded(
    task: EHRWardTask, world: WorldLike, stays: Any, hour: float, arguments: Mapping[str, Any]
) -> tuple[WorldModel, RecordedStays]:
    """The world and the stays of an environment's arguments."""
    for name in ("patients", "cohort"):
        if arguments.get(name) is not None:
            raise ValueError(
                f"{name}={arguments[name]!r}: the patients of EHRReplay-v0 are the recorded stays; leave it out"
            )
    device, hours, dtype = (arguments.get(name) for name in ("device", "hours_per_step", "dtype"))
    world = load_world(task, world, device, None, hours, dtype)
    if stays is None:
        raise ValueError(
            'EHRReplay-v0 needs recorded stays: stays="FOLDER or FILE in MEDS", {"eicu": DIR}, or a list of '
            "PatientEpisode"
        )
    return world, RecordedStays(stays, world, hour)
