"""EHRWard-v0 and EHRWardDose-v0: the class docstring is the page of the environment."""

from __future__ import annotations

from typing import Any

from clinenv.assemble import WorldLike
from clinenv.env import ClinicalEnv
from clinenv.envs.ehr_ward.orders import DOSES
from clinenv.envs.ehr_ward.task import EHRWardTask
from clinenv.registration import WARD_WORLD
from clinenv.vector_env import ClinicalVectorEnv

__all__ = ["EHRWardDoseEnv", "EHRWardDoseVectorEnv", "EHRWardEnv", "EHRWardVectorEnv"]


class EHRWardEnv(ClinicalEnv):
    """
    ## Description
    A patient is admitted with sepsis, pneumonia, diabetic ketoacidosis, heart failure, bleeding of the gut or acute
    kidney injury, and stays until death, discharge or 14 days. Every four hours you order a set of tests and treatments
    at once. A test returns a value, some of them hours later, and changes nothing; a treatment returns nothing and
    changes the patient. What you do not order you do not see: nobody tells you the diagnosis. Whoever lies in bed may
    get clots, which no test shows and heparin prevents; a ventilator, whose PEEP follows the inspired oxygen, helps and
    injures.

    The patient is simulated: by a mechanistic ward (`world="oracle"`) or by a learned one (`world="ehr-ward-small"`).
    **Not for clinical use.**

    ## Action Space
    `MultiBinary(69)`: each entry orders one test, or one treatment at its standard amount for this step (amounts in the
    name's unit; `bool` is yes or no).

    | Num | Order | Num | Order | Num | Order |
    |-----|-------|-----|-------|-----|-------|
    | 0 | inquire_sodium | 23 | inquire_ptt | 46 | vancomycin_mg 1250 |
    | 1 | inquire_potassium | 24 | inquire_lactate | 47 | ceftriaxone_g 2 |
    | 2 | inquire_chloride | 25 | inquire_ph | 48 | meropenem_g 1 |
    | 3 | inquire_bicarbonate | 26 | inquire_pco2 | 49 | furosemide_mg 40 |
    | 4 | inquire_urea_nitrogen | 27 | inquire_po2 | 50 | insulin_units_h 7 |
    | 5 | inquire_creatinine | 28 | inquire_heart_rate | 51 | dextrose_g 25 |
    | 6 | inquire_glucose | 29 | inquire_map | 52 | potassium_chloride_mmol 20 |
    | 7 | inquire_anion_gap | 30 | inquire_sbp | 53 | magnesium_sulfate_g 2 |
    | 8 | inquire_calcium | 31 | inquire_dbp | 54 | sodium_phosphate_mmol 15 |
    | 9 | inquire_magnesium | 32 | inquire_respiratory_rate | 55 | calcium_gluconate_g 2 |
    | 10 | inquire_phosphate | 33 | inquire_spo2 | 56 | bicarbonate_mmol 100 |
    | 11 | inquire_albumin | 34 | inquire_temperature | 57 | red_cells_units 1 |
    | 12 | inquire_alt | 35 | inquire_urine_output | 58 | plasma_units 2 |
    | 13 | inquire_bilirubin | 36 | inquire_gcs | 59 | platelets_units 1 |
    | 14 | inquire_beta_hydroxybutyrate | 37 | inquire_blood_culture | 60 | heparin_units_kg_h 18 |
    | 15 | inquire_crp | 38 | inquire_urine_culture | 61 | oxygen_fraction 0.4 |
    | 16 | inquire_troponin | 39 | saline_ml 1000 | 62 | ventilation_l_min 8 |
    | 17 | inquire_bnp | 40 | ringers_lactate_ml 1000 | 63 | acetaminophen_mg 1000 |
    | 18 | inquire_white_cells | 41 | water_ml 500 | 64 | metoprolol_mg 5 |
    | 19 | inquire_haemoglobin | 42 | norepinephrine_ug_kg_min 0.1 | 65 | pantoprazole_mg 80 |
    | 20 | inquire_haematocrit | 43 | vasopressin_units_min 0.03 | 66 | endoscopy 1 |
    | 21 | inquire_platelets | 44 | hydrocortisone_mg 50 | 67 | renal_replacement_ml_kg_h 25 |
    | 22 | inquire_inr | 45 | piperacillin_tazobactam_g 4.5 | 68 | ultrafiltration_ml_h 100 |

    With `action="multidiscrete"` it is a `MultiDiscrete([2] * 69)` of the same entries, 0 nothing and 1 the order, for
    libraries that know no MultiBinary (RLlib, PufferLib, skrl). `info["action_mask"]` then has two places an entry
    (int8, 138: whether it may be 0, always, and whether it may be 1), in the order of `action_masks()`, which is the
    same in both forms: bool (138,) for sb3-contrib's MaskablePPO, (N, 138) in the vector environment.
    `env.action_space.sample(mask=tuple(info["action_mask"].reshape(69, 2)))` draws from what is allowed.

    `EHRWardDose-v0` has a `Box(-1, 1, (69,))` instead: a > 0 orders a times the largest amount, a <= 0 nothing; a test,
    and an endoscopy, is ordered from 0.5. With `action_unit="units"` it is a Box of the amounts themselves.

    `info["action_mask"]` (int8, 69) is 1 where the chart allows an order: not potassium above a charted 5.5 mmol/L, not
    insulin below a charted glucose of 70 mg/dL or potassium of 3.3 mmol/L, not heparin in a bleeding patient, not a
    test whose result is awaited, and so on. Orders that contradict others of the same set (a beta blocker beside a
    vasopressor, ultrafiltration without renal replacement, two beta-lactams) are no matter of one entry and so not in
    the mask. Neither kind is carried out: `info["refused_orders"]` counts them, `env.unwrapped.refusals()` says why,
    and nothing is paid for them. `env.action_space.sample(mask=2 * info["action_mask"])` draws from what is allowed.

    ## Observation Space
    `Box(229,)` float32. Entries are scaled, (value - centre) / scale, where "(log)" stands by natural logarithms;
    `env.unwrapped.describe(observation)` gives them back in their units. The Box's bounds are the scaled Min and Max. A
    value is the last result that has come. Where none has, it reads a typical normal one, its `inquiry_seen` 0 and its
    age 336.

    | Num | Observation | Unit | Min | Max | Centre | Scale |
    |-----|-------------|------|-----|-----|--------|-------|
    | 0 | age_years | a | 18 | 100 | 60 | 20 |
    | 1 | sex_female | bool | 0 | 1 | 0.5 | 0.5 |
    | 2 | weight_kg | kg | 35 | 180 | 80 | 25 |
    | 3 | chronic_kidney_disease | bool | 0 | 1 | 0.5 | 0.5 |
    | 4 | diabetes | bool | 0 | 1 | 0.5 | 0.5 |
    | 5 | chronic_heart_failure | bool | 0 | 1 | 0.5 | 0.5 |
    | 6-11 | complaint | bool | 0 | 1 | 0.5 | 0.5 |
    | 12 | hours | h | 0 | 1000 | 168 | 168 |
    | 13 | sodium_mmol_l | mmol/L | 90 | 200 | 140.5 | 18 |
    | 14 | potassium_mmol_l | mmol/L | 1 | 12 | 4.25 | 3 |
    | 15 | chloride_mmol_l | mmol/L | 60 | 160 | 102 | 16 |
    | 16 | bicarbonate_mmol_l | mmol/L | 1 | 60 | 25.5 | 10 |
    | 17 | urea_nitrogen_mg_dl | mg/dL | 1 | 300 | 12.649 (log) | 1.833 |
    | 18 | creatinine_mg_dl | mg/dL | 0.1 | 25 | 0.806 (log) | 1.911 |
    | 19 | glucose_mg_dl | mg/dL | 10 | 1500 | 98.995 (log) | 1.386 |
    | 20 | anion_gap_mmol_l | mmol/L | -10 | 70 | 10 | 12 |
    | 21 | calcium_mg_dl | mg/dL | 3 | 18 | 9.4 | 3.2 |
    | 22 | magnesium_mg_dl | mg/dL | 0.3 | 10 | 2.1 | 2 |
    | 23 | phosphate_mg_dl | mg/dL | 0.2 | 20 | 3.75 | 3 |
    | 24 | albumin_g_dl | g/dL | 0.5 | 6 | 4.5 | 4 |
    | 25 | alt_u_l | U/L | 3 | 15000 | 20.976 (log) | 2.582 |
    | 26 | bilirubin_mg_dl | mg/dL | 0.1 | 50 | 0.6 (log) | 2.773 |
    | 27 | beta_hydroxybutyrate_mmol_l | mmol/L | 0.01 | 20 | 0.122 (log) | 3.584 |
    | 28 | crp_mg_l | mg/L | 0.1 | 700 | 2.828 (log) | 4.159 |
    | 29 | troponin_ng_l | ng/L | 1 | 50000 | 8.718 (log) | 3.116 |
    | 30 | bnp_pg_ml | pg/mL | 1 | 10000 | 41.833 (log) | 3.486 |
    | 31 | white_cells_k_ul | 10*3/uL | 0.1 | 120 | 6.633 (log) | 2.023 |
    | 32 | haemoglobin_g_dl | g/dL | 1 | 24 | 14.5 | 10 |
    | 33 | haematocrit_percent | % | 3 | 75 | 43.5 | 30 |
    | 34 | platelets_k_ul | 10*3/uL | 1 | 1500 | 229.129 (log) | 1.695 |
    | 35 | inr | 1 | 0.7 | 20 | 0.98 (log) | 1 |
    | 36 | ptt_s | s | 15 | 200 | 29.58 (log) | 1 |
    | 37 | lactate_mmol_l | mmol/L | 0.2 | 35 | 1 (log) | 2.773 |
    | 38 | ph | 1 | 6.4 | 8 | 7.4 | 0.2 |
    | 39 | pco2_mmhg | mm[Hg] | 5 | 180 | 40 | 20 |
    | 40 | po2_mmhg | mm[Hg] | 10 | 700 | 89.443 (log) | 1 |
    | 41 | heart_rate_bpm | bpm | 10 | 250 | 80 | 80 |
    | 42 | map_mmhg | mm[Hg] | 5 | 220 | 87.5 | 70 |
    | 43 | sbp_mmhg | mm[Hg] | 10 | 300 | 115 | 100 |
    | 44 | dbp_mmhg | mm[Hg] | 5 | 200 | 75 | 60 |
    | 45 | respiratory_rate_min | /min | 2 | 70 | 16 | 16 |
    | 46 | spo2_percent | % | 20 | 100 | 97.5 | 10 |
    | 47 | temperature_c | Cel | 28 | 43 | 37.05 | 3.8 |
    | 48 | urine_output_ml_h | mL/h | 0 | 1000 | 100 | 150 |
    | 49 | gcs | 1 | 3 | 15 | 12 | 3 |
    | 50 | blood_culture | 1 | 0 | 4 | 2 | 2 |
    | 51 | urine_culture | 1 | 0 | 4 | 2 | 2 |
    | 52-90 | inquiry_age_hours | h | 0 | 336 | 168 | 168 |
    | 91-129 | inquiry_seen | bool | 0 | 1 | 0.5 | 0.5 |
    | 130-168 | inquiry_pending | bool | 0 | 1 | 0.5 | 0.5 |
    | 169-198 | treatment_share | fraction | 0 | 1 | 0.5 | 0.5 |
    | 199-228 | treatment_age_hours | h | 0 | 96 | 48 | 48 |

    (complaint: fever, dyspnoea, hyperglycaemia, bleeding, oliguria, weakness. inquiry_*: in the order of the 39 values;
    treatment_*: in the order of the actions from 39; treatment_share: given in the last step, as a share of the largest
    amount; a treatment never given has the age 96.)

    - `observation="events"`: a `Dict` of arrays with 108 places, the set of the last step's orders and results: `item`,
      `kind` (1 test ordered, 2 treatment given, 3 result), `value`, `age_hours`, `mask`, and `context`.
    - `observation="text"`: a note, `Text(12000)`, for agents that read. (Stable-Baselines3 takes no text.)

    ## Rewards
    What the stay costs, in units of 10,000 US dollars or a tenth of a quality-adjusted life year (QALY), which is worth
    100,000 US dollars (`clinenv.worth`). The sum of five terms, none above 0, each also in info as `reward_<term>`:
    - *survival*: for death, the QALYs that this patient had before him by age, sex and chronic disease, each further
      year worth 3 % less (`clinenv.envs.ehr_ward.years_left`): minus 94 for a man of 68 without chronic disease, 185
      for one of 40, 7 for one of 90 with heart failure and diabetes;
    - *stay*: minus 0.2 a day in hospital, 2,000 US dollars;
    - *stability*: the health that illness takes while it lasts: minus 0.027, a day of life, for a day with no watched
      value in its reference range, in proportion; a watched value that is not known, or too old, counts as out of it,
      so that a test never lowers this term;
    - *tests*, *treatments*: minus 1 for 10,000 US dollars.

    `info["cost"]`, apart from the reward, counts harm as it is charted: a glucose under 70 mg/dL (twice under 54), a
    potassium above 6 mmol/L, a mean pressure under 65 mm Hg within 8 h of a beta blocker, diuretic or ultrafiltration
    (`cost_hypoglycaemia`, `cost_hyperkalaemia`, `cost_hypotension`; the cost is their sum).
    Reward and cost read the chart: harm that nobody measured is in the oracle's `truth`, not in here.

    ## Starting State
    A patient of the cohort, drawn from the seed, with vital signs taken.
    `reset(options={"age_years": 70, "diabetes": 1})` fixes what you name (age_years, sex_female, weight_kg,
    chronic_kidney_disease, diabetes, chronic_heart_failure; in the oracle also disease, organism and severity); the
    rest is drawn. To start from a recorded stay see `EHRReplay-v0`.

    ## Episode End
    Terminated by death or discharge. In the oracle a patient goes home by the chart and by chance: after a day at
    least, on room air, vital signs and basic tests known and in bounds; nobody goes unexamined (`docs/ward_oracle.md`).
    Truncated after 14 days: 84 steps of four hours, the id's time limit. A world with shorter steps needs more of them:
    pass `max_episode_steps=336` with `hours_per_step=1`.

    ## Information
    After every call `hours`, `action_mask`, `spread_<measure>` (the model's standard deviation, in the measure's unit)
    and `support` (False: outside what the world was made for); `cost`, `refused_orders` and
    `reward_<term>` of the last step, 0 after a reset. Nothing in it is shared between calls.

    ## Arguments
    ```python
    import gymnasium, clinenv
    gymnasium.make("EHRWard-v0", world="ehr-ward-small", patients="generated", cohort=None, observation="chart",
                   noise="none", missingness="none", hours=None, hours_per_step=None, action=None, device=None,
                   render_mode=None, uncertainty=True, pessimism=None, compile=False, dtype=None)
    ```
    - `world`: "oracle", "ehr-ward-small", a folder with weights, or a world object.
    - `cohort`: in the oracle "ward" (default), "icu", or one disease: "sepsis", "pneumonia", "diabetic-ketoacidosis",
      "heart-failure", "gi-bleed", "acute-kidney-injury".
    - `hours_per_step`: 1 to 12 in the oracle; a learned world has its own. Under 4 `max_episode_steps` is needed too.
    - `uncertainty`: False leaves `spread_*` out of info; in the learned ward that is half the time of a step.
    - `action`: "multidiscrete", see "Action Space"; of `EHRWard-v0` alone.
    - `noise`: results carry their laboratory's error always; "clinic" adds an error of charting to the observed vital
      signs (SD: heart rate 3 bpm, pressures 3 to 4 mm Hg, breaths 2, saturation 1 %, temperature 0.2 C; a charted value
      keeps its error), "ward" twice that.
    - `missingness`: with "some" one ordered test in ten is never taken, with "much" three in ten; nobody says which.
    - `pessimism`: {"kind": "mopo", "weight": 1.0} charges doubt about the learned world, {"kind": "morel", ...} ends
      episodes outside of what it knows (`clinenv.pessimism`); for training, not for judging.
    - `compile`: True makes machine code of a step at the first one (minutes, once on a machine; needs g++), which then
      takes a tenth of the time or less (`clinenv.compiled`).
    - `dtype`: "bfloat16" or "float16" for a learned world's products of matrices, faster where the machine multiplies
      in it (`world_models.half`).
    - `hours`: a shorter or longer stay.
    - `render_mode`: "rgb_array" or "human": the patient's chart.

    ## Version History
    * v0: first version.
    """

    def __init__(self, task: EHRWardTask | None = None, world: WorldLike = WARD_WORLD, **arguments: Any) -> None:
        super().__init__(EHRWardTask() if task is None else task, world, **arguments)


class EHRWardDoseEnv(ClinicalEnv):
    """`EHRWard-v0` with amounts instead of switches: see `EHRWardEnv`, "Action Space"."""

    def __init__(self, task: EHRWardTask | None = None, world: WorldLike = WARD_WORLD, **arguments: Any) -> None:
        super().__init__(_dosed(task), world, **arguments)


class EHRWardVectorEnv(ClinicalVectorEnv):
    """`EHRWard-v0` for thousands of patients at once: see `EHRWardEnv`, and `ClinicalVectorEnv` for its arguments."""

    def __init__(
        self, num_envs: int = 1, task: EHRWardTask | None = None, world: WorldLike = WARD_WORLD, **arguments: Any
    ) -> None:
        super().__init__(EHRWardTask() if task is None else task, num_envs, world, **arguments)


class EHRWardDoseVectorEnv(ClinicalVectorEnv):
    """`EHRWardDose-v0` for thousands of patients at once."""

    def __init__(
        self, num_envs: int = 1, task: EHRWardTask | None = None, world: WorldLike = WARD_WORLD, **arguments: Any
    ) -> None:
        super().__init__(_dosed(task), num_envs, world, **arguments)


def _dosed(task: EHRWardTask | None) -> EHRWardTask:
    return EHRWardTask(actions=DOSES) if task is None else task
