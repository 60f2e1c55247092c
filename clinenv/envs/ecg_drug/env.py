"""ECGDrug-v0 and ECGDrugContinuous-v0: the class docstring is the page of the environment."""

from __future__ import annotations

from typing import Any

from clinenv.assemble import WorldLike
from clinenv.env import ClinicalEnv
from clinenv.envs.ecg_drug.task import SINGLE_DOSE_MG, ECGDrugTask
from clinenv.task import Doses
from clinenv.vector_env import ClinicalVectorEnv

__all__ = ["ECGDrugContinuousEnv", "ECGDrugContinuousVectorEnv", "ECGDrugEnv", "ECGDrugVectorEnv"]


class ECGDrugEnv(ClinicalEnv):
    """
    ## Description
    A patient with an arrhythmia is admitted for 48 hours so that an antiarrhythmic drug can be started under ECG
    control. Every two hours you order nothing or one dose of one of four drugs. Each drug lowers the share of time in
    the arrhythmia in its own way, and lengthens PR or QT in its own way: too long a QT brings torsades de pointes,
    which ends the episode. Patients differ in age, sex, weight, kidneys, electrolytes, intervals, clearance and
    sensitivity, not all of which you see.

    The patient is simulated: by a learned world model (`world="ecg-wm-small"`) or by a mechanistic oracle fitted on
    trial NCT01873950 (`world="oracle"`). **Not for clinical use.**

    ## Action Space
    `Discrete(9)`, given now, by mouth:

    | Num | Order | Num | Order |
    |-----|-------|-----|-------|
    | 0 | nothing | 5 | verapamil 80 mg |
    | 1 | ranolazine 500 mg | 6 | verapamil 120 mg |
    | 2 | ranolazine 1000 mg | 7 | quinidine sulfate 200 mg |
    | 3 | dofetilide 0.25 mg | 8 | quinidine sulfate 400 mg |
    | 4 | dofetilide 0.5 mg | | |

    `ECGDrugContinuous-v0` has a `Box(-1, 1, (4,))` instead: for ranolazine, dofetilide, verapamil and quinidine, a > 0
    orders a times 1000, 0.5, 120 and 400 mg, and a <= 0 orders nothing. With `action_unit="mg"` it is a Box of the
    milligrams themselves.

    ## Observation Space
    `Box(36,)` float32. Entries are scaled, (value - centre) / scale, to lie mostly in [-1, 1];
    `env.unwrapped.describe(observation)` gives them back in their units. The Box's bounds are the scaled Min and Max.

    | Num | Observation | Unit | Min | Max | Centre | Scale |
    |-----|-------------|------|-----|-----|--------|-------|
    | 0 | age_years | years | 18 | 100 | 60 | 20 |
    | 1 | sex_female | 0 or 1 | 0 | 1 | 0.5 | 0.5 |
    | 2 | weight_kg | kg | 30 | 200 | 75 | 25 |
    | 3 | creatinine_clearance_ml_min (at admission) | mL/min | 5 | 250 | 80 | 40 |
    | 4 | potassium_mmol_l | mmol/L | 1.5 | 9 | 4.2 | 0.8 |
    | 5 | magnesium_mmol_l | mmol/L | 0.2 | 3 | 0.85 | 0.2 |
    | 6 | hours (since admission) | h | 0 | 1000 | 24 | 24 |
    | 7 | clock_hour | h | 0 | 24 | 12 | 12 |
    | 8 | heart_rate_bpm | 1/min | 20 | 250 | 75 | 25 |
    | 9 | pr_ms | ms | 60 | 600 | 170 | 40 |
    | 10 | qrs_ms | ms | 40 | 250 | 95 | 20 |
    | 11 | qt_ms | ms | 150 | 1000 | 400 | 60 |
    | 12 | qtcf_ms (Fridericia) | ms | 200 | 1000 | 430 | 50 |
    | 13 | jt_peak_ms (J point to T peak) | ms | 50 | 800 | 220 | 50 |
    | 14 | jt_peak_c_ms (/ RR^0.58) | ms | 50 | 800 | 220 | 50 |
    | 15 | tpeak_tend_ms | ms | 20 | 400 | 85 | 25 |
    | 16 | t_amplitude_uv (T peak of the vector magnitude) | uV | 20 | 3000 | 450 | 0.5 |
    | 17 | t_asymmetry (0: legs mirror each other) | 1 | 0 | 3 | 0.2 | 0.2 |
    | 18 | t_flatness (higher is flatter) | 1 | 0.02 | 0.98 | 0.43 | 0.1 |
    | 19 | erd_30_ms (the last 30 % up to the T peak) | ms | 4 | 250 | 45 | 15 |
    | 20 | lrd_30_ms (the first 30 % down from it) | ms | 4 | 200 | 32 | 12 |
    | 21 | atrial_fibrillation (on this ECG) | 0 or 1 | 0 | 1 | 0.5 | 0.5 |
    | 22 | av_block (second or third degree) | 0 or 1 | 0 | 1 | 0.5 | 0.5 |
    | 23 | systolic_bp_mmhg | mmHg | 40 | 260 | 130 | 30 |
    | 24 | baseline_qtcf_ms (at admission) | ms | 200 | 1000 | 420 | 40 |
    | 25 | arrhythmia_burden (share of the last 2 h) | fraction | 0 | 1 | 0.5 | 0.5 |
    | 26 | torsades | 0 or 1 | 0 | 1 | 0.5 | 0.5 |
    | 27-30 | total_dose_mg of the four drugs | mg | 0 | ten daily doses | daily dose | daily dose |
    | 31-34 | hours_since_dose of the four drugs | h | 0 | 48 | 12 | 12 |
    | 35 | hours_since_ecg | h | 0 | 96 | 0 | 12 |

    (T amplitude is taken by its logarithm: ln(value / 450 uV) / 0.5. Daily doses: 2000, 1, 480 and 1600 mg. Longer than
    48 h ago, or never, reads 48. In fibrillation there is no PR: the last one that was read stays, at admission 170 ms,
    and the heart rate is the ventricular rate.)

    - `observation="ecg"`: `Dict(chart=Box(36,), ecg=Box(-20, 20, (60000,)))`, the waveform in mV; `.reshape(12, 5000)`
      gives leads I, II, III, aVR, aVL, aVF, V1 to V6 at 500 Hz. (Flat, because Stable-Baselines3 takes flat rows.)
    - `observation="latent"`: the chart, then the learned world's latent of the ECG.

    ## Rewards
    The sum of four terms, each also in info as `reward_<term>`:
    - *rhythm*: 10 for 48 h wholly in sinus rhythm, in proportion;
    - *qt_toxicity*: minus 10 for 48 h at 1.06^((QTcF - 450 ms) / 10 ms) = 2, in proportion to that hazard less one; the
      5 to 7 % with each 10 ms of QTc are those of the long-QT registry (Drew 2010, PMID 20142454);
    - *dose_burden*: minus 0.25 for a label's maximum daily dose;
    - *torsades*: minus 20, once.

    `info["cost"]`, apart from the reward, is 1 after a step with any of these harms, else 0; each is 0 or 1 in info as
    `cost_<name>` too:
    - *qtc*: QTcF above 500 ms or more than 60 ms above admission (ICH E14);
    - *av_block*: second- or third-degree atrioventricular block;
    - *bradycardia*: a heart rate below 40 bpm;
    - *hypotension*: a systolic pressure below 90 mmHg;
    - *contraindicated_pair*: verapamil with dofetilide or within 48 h of it, dofetilide within 24 h of verapamil.

    Reward, cost and end are judged on the true chart, whatever was observed. A world that does not measure block or
    pressure shows neither.

    ## Starting State
    A patient of the cohort, drawn from the seed, on no drug. `reset(options={"age_years": 70, "sex_female": 1})` fixes
    what you name; the rest is drawn:
    - who it is: age_years, sex_female, weight_kg, creatinine_clearance_ml_min, potassium_mmol_l, magnesium_mmol_l,
      baseline_systolic_bp_mmhg, baseline_burden (share of the time in the arrhythmia), admission_clock_hour;
    - the ECG before any drug: baseline_heart_rate_bpm, baseline_pr_ms, baseline_qrs_ms, baseline_qtcf_ms,
      baseline_tpeak_tend_ms, baseline_t_amplitude_uv, baseline_t_asymmetry, baseline_t_flatness, baseline_erd_30_ms,
      baseline_lrd_30_ms, and baseline_fibrillation_rate_bpm, the ventricles' rate while the atria fibrillate;
    - what no chart shows: ranolazine_clearance, verapamil_clearance, quinidine_clearance (multiples of the usual);
    - admission_fibrillation: 1 if the admission ECG shows fibrillation, 0 if sinus rhythm; else chance has it, by the
      burden.

    With `patients=FOLDER` the ECG's part comes from the WFDB records in it: intervals, T wave, rhythm and the beat's
    shape, and age and sex where a header states them. Up to six lost leads of the eight independent ones are
    reconstructed, with a warning.

    ## Episode End
    Terminated by torsades de pointes; truncated after 48 h (24 steps).

    ## Information
    After every call
    - `hours` since admission;
    - `spread_<measure>`: the standard deviation of the model's prediction, in the measure's unit; of it
      `epistemic_<measure>`, because the patient is not known well enough, and `aleatoric_<measure>`, chance from moment
      to moment: spread^2 = epistemic^2 + aleatoric^2. The oracle knows its patients: its epistemic part is 0;
    - `support` (False: outside what the world was fitted on);
    - `cost`, `cost_<part>` and `reward_<term>` of the last step, 0 after a reset.

    Nothing in it is shared between calls.

    ## Arguments
    ```python
    import gymnasium, clinenv
    gymnasium.make("ECGDrug-v0", world="ecg-wm-small", patients="generated", cohort=None, observation="chart",
                   noise="none", missingness="none", hours=None, device=None, render_mode=None, pessimism=None,
                   compile=False, dtype=None)
    ```
    - `world`: "ecg-wm-small", "oracle", a folder with weights, or a world object.
    - `patients`: "generated", or a folder of WFDB records. `cohort`: which patients are drawn.
    - `noise`: "clinic" adds a careful reader's error to the observed intervals and T measures (SD: heart rate 2.8
      bpm, PR 5.3, QRS 3.9, J-Tpeak 4.7, Tpeak-Tend 2.7, ERD_30 4.6, LRD_30 3.9 ms, T amplitude 18 uV, asymmetry 0.055,
      flatness 0.012: the trial's own repeatability), "ward" twice that.
    - `missingness`: with "some" one ECG in five is not made, with "much" one in two; the last one's values stay and
      hours_since_ecg counts.
    - `hours`: a shorter stay; a longer one needs `max_episode_steps` too.
    - `pessimism`: {"kind": "mopo", "weight": 1.0} charges doubt about the learned world, {"kind": "morel", ...} ends
      episodes outside of what it knows (`clinenv.pessimism`); for training, not for judging.
    - `compile`: True makes machine code of a step at the first one (minutes, once on a machine; needs g++), which then
      takes a tenth of the time or less (`clinenv.compiled`).
    - `dtype`: "bfloat16" or "float16" for a learned world's products of matrices, faster where the machine multiplies
      in it (`world_models.half`).
    - `render_mode`: "rgb_array" or "human": the ECG on paper and the intervals' course.

    ## Version History
    * v0: first version.
    """

    def __init__(self, task: ECGDrugTask | None = None, world: WorldLike = "ecg-wm-small", **arguments: Any) -> None:
        super().__init__(ECGDrugTask() if task is None else task, world, **arguments)


class ECGDrugContinuousEnv(ClinicalEnv):
    """`ECGDrug-v0` with milligrams instead of a menu: see `ECGDrugEnv`, "Action Space"."""

    def __init__(self, task: ECGDrugTask | None = None, world: WorldLike = "ecg-wm-small", **arguments: Any) -> None:
        super().__init__(_continuous(task), world, **arguments)


class ECGDrugVectorEnv(ClinicalVectorEnv):
    """`ECGDrug-v0` for thousands of patients at once: see `ECGDrugEnv`, and `ClinicalVectorEnv` for its arguments."""

    def __init__(
        self, num_envs: int = 1, task: ECGDrugTask | None = None, world: WorldLike = "ecg-wm-small", **arguments: Any
    ) -> None:
        super().__init__(ECGDrugTask() if task is None else task, num_envs, world, **arguments)


class ECGDrugContinuousVectorEnv(ClinicalVectorEnv):
    """`ECGDrugContinuous-v0` for thousands of patients at once."""

    def __init__(
        self, num_envs: int = 1, task: ECGDrugTask | None = None, world: WorldLike = "ecg-wm-small", **arguments: Any
    ) -> None:
        super().__init__(_continuous(task), num_envs, world, **arguments)


def _continuous(task: ECGDrugTask | None) -> ECGDrugTask:
    return ECGDrugTask(actions=Doses(SINGLE_DOSE_MG)) if task is None else task
