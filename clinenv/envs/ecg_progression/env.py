"""ECGProgression-v0: the class docstring is the page of the environment."""

from __future__ import annotations

from typing import Any

from clinenv.assemble import WorldLike
from clinenv.env import ClinicalEnv
from clinenv.envs.ecg_progression.task import ECGProgressionTask
from clinenv.vector_env import ClinicalVectorEnv

__all__ = ["PROGRESSION_WORLD", "ECGProgressionEnv", "ECGProgressionVectorEnv"]

PROGRESSION_WORLD = "cardiac-jepa-small"  # in which the environment is made when no world is named


class ECGProgressionEnv(ClinicalEnv):
    """
    ## Description
    A patient comes to a cardiology clinic and stays with it for ten years. At each visit a 12-lead ECG is recorded; you
    see what a probe reads in it, choose treatments, and say when the patient is to come again. Between visits diseases
    of the heart and vessels begin, resolve or stay, as age, history and treatment make it likely.

    The patient is simulated: by a learned world, Cardiac JEPA, in which a disease is an action on the ECG's latent
    (`world="cardiac-jepa-small"`), or by a mechanistic one seen through the same encoder (`world="oracle"`).
    **Not for clinical use.**

    ## Action Space
    `MultiDiscrete([2] * 14 + [4])`: fourteen treatments, each given (1) or not (0), and the time to the next visit.
    Treatments alone would be MultiBinary; one MultiDiscrete holds both, and Stable-Baselines3 takes it.

    | Num | Order | Levels |
    |-----|-------|--------|
    | 0 | cardioversion | 0, 1 (done at this visit) |
    | 1 | ablation | 0, 1 (done at this visit) |
    | 2 | pacemaker | 0, 1 (done at this visit; kept) |
    | 3 | revascularisation | 0, 1 (done at this visit) |
    | 4 | antiarrhythmic | 0, 1 (taken until the next visit) |
    | 5 | beta_blocker | 0, 1 (taken until the next visit) |
    | 6 | ace_inhibitor | 0, 1 (taken until the next visit) |
    | 7 | diuretic | 0, 1 (taken until the next visit) |
    | 8 | anticoagulant | 0, 1 (taken until the next visit) |
    | 9 | statin | 0, 1 (taken until the next visit) |
    | 10 | sglt2_inhibitor | 0, 1 (taken until the next visit) |
    | 11 | icd | 0, 1 (defibrillator, done at this visit; kept) |
    | 12 | crt | 0, 1 (resynchronisation, done at this visit; kept) |
    | 13 | valve_replacement | 0, 1 (aortic, done at this visit; kept) |
    | 14 | months_to_next_visit | 1, 3, 6, 12 |

    `info["action_mask"]` (int8, 32) has one place a level, order after order: 0 where it cannot be had. Only a second
    device of a kind, a pacemaker beside resynchronisation and another valve are refused. Everything else is carried
    out, sensible or not: a mask that knew the diagnoses would tell them. `action_masks()` gives it as sb3-contrib's
    MaskablePPO asks for it.

    ## Observation Space
    `Box(43,)` float32. Entries are scaled, (value - centre) / scale; `env.unwrapped.describe(observation)` gives them
    back in their units. The Box's bounds are the scaled Min and Max.

    | Num | Observation | Unit | Min | Max | Centre | Scale |
    |-----|-------------|------|-----|-----|--------|-------|
    | 0 | age_years | a | 18 | 130 | 60 | 20 |
    | 1 | sex_female | bool | 0 | 1 | 0.5 | 0.5 |
    | 2 | years | a | 0 | 12 | 5 | 5 |
    | 3 | months_since_visit | month | 0 | 24 | 6 | 6 |
    | 4-27 | probe | fraction | 0 | 1 | 0.5 | 0.5 |
    | 28-41 | treated | bool | 0 | 1 | 0.5 | 0.5 |
    | 42 | bleeding | bool | 0 | 1 | 0.5 | 0.5 |

    (probe: probability of each condition, read from the ECG's latent by a linear probe, in the order I10 I11 I20 I21
    I25 I26 I27 I30 I31 I34 I35 I42 I44 I45 I47 I48 I49 I50 I51 I63 I70 I73 I82 I95; treated: drugs taken since the last
    visit, procedures ever done, in the order of the actions; bleeding: a major bleed since the last visit.)

    What the patient has is not in it: an ECG does not show a pressure, and shows a flutter only while it lasts. Nor is
    the ejection fraction, which decides whom a defibrillator or resynchronisation helps.

    - `observation="labels"`: `Box(67,)`, the recorded conditions (0 or 1) after the rest.
    - `observation="latent"`: the ECG's latent after the rest.
    - `observation="ecg"`: a `Dict` of `chart` (the Box above) and `ecg` (12 leads of ten seconds at 100 Hz, mV, one
      flat row), in worlds that draw one: the oracle.

    ## Rewards
    In quality-adjusted life years (QALY), none above 0, as they count at the first visit: each further year is worth
    3 % less (`clinenv.worth`). The sum of an episode is the QALYs lived within the ten years minus these ten, which are
    8.7 so counted. Five terms, each also in info as `reward_<term>`, in proportion to the interval where they last:
    - *disease_burden*: the conditions present, by the disability weights of the Global Burden of Disease (stroke 0.174
      a year, infarction 0.100, heart failure 0.097, without a diuretic 0.179, angina 0.080, atrial fibrillation 0.048,
      ...), combined as 1 - prod(1 - w), the mean of the interval's two visits;
    - *death*: the years of the ten that are left, in full (in health it costs most, but never less than any disease);
      the interval's own counts half;
    - *treatment_burden*: a year on a drug 0.004 to 0.020, a procedure 0.004 (cardioversion) to 0.060 (valve);
    - *visits*: 0.0029 each: half a day, and 150 US dollars at 100,000 for a QALY;
    - *bleeding*: 0.030 a major bleed.

    `info["cost"]`, apart from the reward, counts harm: 1 for a major bleed, and 1 for each treatment that a recorded
    condition forbids (beta-blocker or antiarrhythmic in I44 without a device that paces; ACE inhibitor, diuretic or
    SGLT2 inhibitor in I95; a defibrillator in I21; a new valve in I63);
    `cost_bleed` and `cost_contraindicated` are its parts.
    Sources of all weights: `clinenv.envs.ecg_progression.rewards`.

    ## Starting State
    A patient of the cohort, drawn from the seed, at the first visit. `reset(options={"age_years": 70})` fixes what you
    name, among the world's factors; the rest is drawn.

    ## Episode End
    Terminated by death, or at the first visit after ten years; 120 visits (one a month) are the time limit.

    ## Information
    After every call `hours` (since the first visit), `action_mask` and `support` (False: outside what the world was
    made for); `cost`, `refused_orders` and `reward_<term>` of the last step, 0 after a
    reset.

    ## Arguments
    ```python
    import gymnasium, clinenv
    gymnasium.make("ECGProgression-v0", world="cardiac-jepa-small", patients="generated", cohort=None,
                   observation="chart", hours=None, device=None, render_mode=None, uncertainty=True, pessimism=None,
                   compile=False, dtype=None)
    ```
    - `world`: "oracle", "cardiac-jepa-small", a folder with weights, or a world object.
    - `cohort`: which patients are drawn, in worlds that know several.
    - `pessimism`: {"kind": "mopo", "weight": 1.0} charges doubt about the learned world, {"kind": "morel", ...} ends
      episodes outside of what it knows (`clinenv.pessimism`); for training, not for judging.
    - `compile`: True makes machine code of a step at the first one (minutes, once on a machine; needs g++), which then
      takes a tenth of the time or less (`clinenv.compiled`).
    - `dtype`: "bfloat16" or "float16" for a learned world's products of matrices, faster where the machine multiplies
      in it (`world_models.half`).
    - `hours`: a limit in the world's nominal steps (4383 h a visit); the ten years hold all the same.
    - `render_mode`: "rgb_array" or "human": conditions and treatments on a time line, and the latent's way on a map.

    ## Version History
    * v0: first version.
    """

    def __init__(
        self, task: ECGProgressionTask | None = None, world: WorldLike = PROGRESSION_WORLD, **arguments: Any
    ) -> None:
        super().__init__(ECGProgressionTask() if task is None else task, world, **arguments)


class ECGProgressionVectorEnv(ClinicalVectorEnv):
    """`ECGProgression-v0` for thousands at once: see `ECGProgressionEnv`, and `ClinicalVectorEnv` for its arguments."""

    def __init__(
        self,
        num_envs: int = 1,
        task: ECGProgressionTask | None = None,
        world: WorldLike = PROGRESSION_WORLD,
        **arguments: Any,
    ) -> None:
        super().__init__(ECGProgressionTask() if task is None else task, num_envs, world, **arguments)
