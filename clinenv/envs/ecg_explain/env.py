"""ECGExplain-v0: the class docstring is the page of the environment."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from clinenv.assemble import WorldLike, load_world
from clinenv.env import ClinicalEnv
from clinenv.envs.ecg_explain.task import ECGExplainTask
from clinenv.envs.ecg_progression.env import PROGRESSION_WORLD
from clinenv.vector_env import ClinicalVectorEnv
from world_models.cardiac_jepa.explain import ExplainWorld, HasPairs

__all__ = ["ECGExplainEnv", "ECGExplainVectorEnv", "explain_world"]


class ECGExplainEnv(ClinicalEnv):
    """
    ## Description
    Two ECGs of one patient, and what the patient had at the first: what happened in between? You see both as latents of
    Cardiac JEPA, and propose one transition after the other, an onset or a resolution of a condition; the model's
    dynamics lead the first latent on with each. The shortest sequence that leads to the second latent is the
    explanation. Diagnosis as planning.

    The pairs are those stored with the world's weights (`world="cardiac-jepa-small"`), or drawn from the mechanistic
    clinic and seen through the same encoder (`world="oracle"`). **Not for clinical use.**

    ## Action Space
    `Discrete(49)` with the 24 codes I10 I11 I20 I21 I25 I26 I27 I30 I31 I34 I35 I42 I44 I45 I47 I48 I49 I50 I51 I63 I70
    I73 I82 I95; `Discrete(2 C + 1)` with other worlds' C codes.

    | Num | Action |
    |-----|--------|
    | 0 | stop: the explanation is complete |
    | 1-24 | onset of code 0 to 23 |
    | 25-48 | resolution of code 0 to 23 |

    `info["action_mask"]` (int8, 49) is 0 for what cannot be: the onset of what is present, the resolution of what is
    absent, as the steps so far left it. Such an action is not carried out: it costs its step and moves nothing. The
    mask tells only what was known: the conditions before, and what you did. A transition can be taken back.

    ## Observation Space
    `Box(3 Z + 50,)` float32 for a latent of Z numbers (256 in the paper). Entries are scaled, (value - centre) / scale;
    `env.unwrapped.describe(observation)` gives them back. The Box's bounds are the scaled Min and Max.

    | Observation | Entries | Unit | Min | Max | Centre | Scale |
    |-------------|---------|------|-----|-----|--------|-------|
    | z_now | Z | 1 | -25 | 25 | 0 | 1 |
    | z_goal | Z | 1 | -25 | 25 | 0 | 1 |
    | difference | Z | 1 | -25 | 25 | 0 | 1 |
    | condition_before | 24 | bool | 0 | 1 | 0.5 | 0.5 |
    | found | 24 | 1 | -1 | 1 | 0 | 1 |
    | days | 1 | d | 0 | 36525 | 365 | 365 |
    | steps_left | 1 | 1 | 0 | 8 | 4 | 4 |

    (z_now: where the transitions so far lead; difference: z_goal - z_now; found: their net, 1 onset, -1 resolution.)

    ## Rewards
    The sum of two terms, each also in info as `reward_<term>`:
    - *nearer*: how much the squared distance to z_goal fell, as a share of that between the two ECGs;
    - *length*: minus 0.02 for each transition. "stop" is free.

    `info["cost"]` is 0: nothing here does harm.

    ## Starting State
    A pair drawn from the seed. `reset(options={"z_before": ..., "z_goal": ..., "condition_before": ..., "days": ...})`
    poses your own (all four; its true transitions are then unknown and read as none).

    ## Episode End
    Terminated by "stop", or after eight steps.

    ## Information
    After every call `hours` (the steps taken), `action_mask`, `support`, and for judging: `explained` (found equals the
    true set), `found_transitions` and `true_transitions` (int8, one a code), `latent_distance` (1 at the start);
    `cost`, `refused_orders` and `reward_<term>` of the last step, 0 after a reset.

    ## Arguments
    ```python
    import gymnasium, clinenv
    gymnasium.make("ECGExplain-v0", world="cardiac-jepa-small", compose="chain", device=None, render_mode=None)
    ```
    - `world`: "cardiac-jepa-small", "oracle", a folder with weights, a world with `jepa`, `codes` and `explain_pairs`,
      or an `ExplainWorld`.
    - `compose`: "chain" applies each transition to the latent that the one before led to (the days pass with the
      first); "joint" applies the net set to the first latent at once, as the dynamics were trained.
    - `render_mode`: "rgb_array" or "human": the way on a map of latents, and the transitions.

    ## Version History
    * v0: first version.
    """

    def __init__(
        self,
        task: ECGExplainTask | None = None,
        world: WorldLike = PROGRESSION_WORLD,
        compose: str = "chain",
        **arguments: Any,
    ) -> None:
        chosen = (arguments.pop(name, None) for name in ("device", "cohort", "dtype"))
        task, world = explain_world(task, world, compose, *chosen)
        super().__init__(task, world, **arguments)


class ECGExplainVectorEnv(ClinicalVectorEnv):
    """`ECGExplain-v0` for thousands of pairs at once: see `ECGExplainEnv`, and `ClinicalVectorEnv` for its
    arguments."""

    def __init__(
        self,
        num_envs: int = 1,
        task: ECGExplainTask | None = None,
        world: WorldLike = PROGRESSION_WORLD,
        compose: str = "chain",
        **arguments: Any,
    ) -> None:
        chosen = (arguments.pop(name, None) for name in ("device", "cohort", "dtype"))
        task, world = explain_world(task, world, compose, *chosen)
        super().__init__(task, num_envs, world, **arguments)


def explain_world(
    task: ECGExplainTask | None,
    world: WorldLike,
    compose: str = "chain",
    device: str | None = None,
    cohort: str | None = None,
    dtype: str | None = None,
) -> tuple[ECGExplainTask, ExplainWorld]:
    """The task for the world's codes, and the world with problems in it; an `ExplainWorld` is taken as it is.

    Raises:
        ValueError: the world has no JEPA or no pairs, or an argument that does not go with it.
    """
    task = ECGExplainTask() if task is None else task
    if not isinstance(world, ExplainWorld):
        world = load_world(task, world, device, cohort, None, dtype)
        if not isinstance(world, HasPairs):
            raise ValueError(
                f"world {world.name!r} has no jepa, codes and explain_pairs, so there is nothing to explain in it; use "
                f"world={PROGRESSION_WORLD!r} or another Cardiac JEPA"
            )
        world = ExplainWorld(world, compose)
    return (task if task.codes == world.codes else replace(task, codes=world.codes)), world
