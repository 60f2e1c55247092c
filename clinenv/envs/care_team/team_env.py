"""CareTeam-v0 and CareTeamDose-v0 for PettingZoo: the class docstring is the page of the environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import Space
from gymnasium.vector import AutoresetMode
from pettingzoo import ParallelEnv
from pettingzoo.utils import parallel_to_aec
from pettingzoo.utils.env import AECEnv

from clinenv.arguments import check_options
from clinenv.envs.care_team.rights import ROLES
from clinenv.envs.care_team.task import CareTeamTask
from clinenv.envs.care_team.vector_env import CareTeamDoseVectorEnv, CareTeamVectorEnv
from clinenv.vector_info import row_of

__all__ = ["CareTeamDoseEnv", "CareTeamEnv", "dose_env", "env"]

_PROBED = "options"  # PettingZoo's parallel_api_test resets with {"options": 1} to see whether options are taken at all


class CareTeamEnv(ParallelEnv[str, np.ndarray, np.ndarray]):
    """
    ## Description
    The patient of `EHRWard-v0`, and three people who attend to him: intensivist, pharmacist and nurse. Every four hours
    each looks at his own chart and says, at the same time as the others, what he orders and what he holds back. What
    they said is settled by fixed rules, becomes one set of orders for the ward, and the team shares what comes of it.

    The patient is simulated: by a mechanistic ward (`world="oracle"`) or by a learned one (`world="ehr-ward-small"`).
    **Not for clinical use.**

    ## Agents
    `intensivist`, `pharmacist`, `nurse`; all of them until the stay ends, which it does for all at once.

    Who may say what of which order (`clinenv.envs.care_team.rights`):

    | Orders | May order | May hold back | May adjust |
    |--------|-----------|---------------|------------|
    | inquire_heart_rate, inquire_map, inquire_sbp, inquire_dbp, inquire_respiratory_rate, inquire_spo2 | nurse | | |
    | inquire_temperature, inquire_urine_output, inquire_gcs | nurse | | |
    | inquire_glucose, inquire_lactate, inquire_blood_culture, inquire_urine_culture | intensivist, nurse | | |
    | inquire_potassium, inquire_creatinine, inquire_calcium | intensivist, pharmacist | | |
    | inquire_platelets, inquire_inr | intensivist, pharmacist | | |
    | inquire_magnesium, inquire_phosphate, inquire_albumin | pharmacist | | |
    | inquire_alt, inquire_bilirubin, inquire_ptt | pharmacist | | |
    | inquire_sodium, inquire_chloride, inquire_bicarbonate, inquire_urea_nitrogen | intensivist | | |
    | inquire_anion_gap, inquire_beta_hydroxybutyrate, inquire_crp, inquire_troponin, inquire_bnp | intensivist | | |
    | inquire_white_cells, inquire_haemoglobin, inquire_haematocrit | intensivist | | |
    | inquire_ph, inquire_pco2, inquire_po2 | intensivist | | |
    | saline_ml, ringers_lactate_ml, bicarbonate_mmol, vasopressin_units_min | intensivist | | |
    | red_cells_units, plasma_units, platelets_units | intensivist | | |
    | ventilation_l_min, endoscopy, renal_replacement_ml_kg_h | intensivist | | |
    | norepinephrine_ug_kg_min | intensivist | | nurse |
    | ultrafiltration_ml_h | intensivist | nurse | nurse |
    | water_ml | intensivist | nurse | |
    | insulin_units_h | intensivist | pharmacist, nurse | nurse |
    | furosemide_mg, metoprolol_mg | intensivist | pharmacist, nurse | pharmacist |
    | hydrocortisone_mg, heparin_units_kg_h | intensivist | pharmacist | pharmacist |
    | piperacillin_tazobactam_g, vancomycin_mg | intensivist, pharmacist | pharmacist | pharmacist |
    | ceftriaxone_g, meropenem_g | intensivist, pharmacist | pharmacist | pharmacist |
    | potassium_chloride_mmol, pantoprazole_mg | intensivist, pharmacist | pharmacist | pharmacist |
    | calcium_gluconate_g | intensivist, pharmacist | | |
    | magnesium_sulfate_g, sodium_phosphate_mmol | pharmacist | | |
    | acetaminophen_mg | intensivist, nurse | pharmacist | |
    | dextrose_g, oxygen_fraction | intensivist, nurse | | |

    Who overrides whom, strongest first:
    1. What somebody with that right holds back is not given, whoever ordered it.
    2. Who may adjust an order sets the amount of what a colleague ordered (`CareTeamDose-v0` alone); he orders nothing
       by that.
    3. Where several order the same, the pharmacist's amount counts, else the intensivist's, else the nurse's.

    The nurse orders three treatments by standing order: oxygen while a saturation under 94 % is charted or oxygen runs,
    acetaminophen above a charted 38 Cel, dextrose below a charted glucose of 70 mg/dL. At last the ward refuses what it
    refuses everybody (see `EHRWardEnv`).

    ## Action Spaces
    `MultiBinary`: intensivist 52, pharmacist 32, nurse 21 entries: an order at its standard amount for each he may
    give, then a hold for each he may hold back; `labels(agent)` names them. `CareTeamDose-v0` has a `Box(-1, 1)`
    instead (52, 42 and 24 entries, the adjustments last), where a > 0 is a times the largest amount and a <= 0 says
    nothing; tests, endoscopy and holds from 0.5. With `action_unit="units"` it is a Box of the amounts themselves.

    `infos[agent]["action_mask"]` (int8) is 1 where an entry orders nothing that the chart forbids him; a hold is always
    1. As everywhere here a 1 allows and does not command:
    `env.action_space(agent).sample(mask=2 * infos[agent]["action_mask"])` draws from what is allowed. For a Box, which
    takes no mask, it is named `order_mask`.

    ## Observation Spaces
    `Box` float32, each agent's columns of the 229 of `EHRWard-v0`, with the same scales: intensivist 193, pharmacist
    157, nurse 125. Everybody sees who the patient is, why he came and how long ago; of results (value, age, whether
    seen, whether awaited) and of treatments (share, age) the others:

    | Agent | Does not see |
    |-------|--------------|
    | intensivist | sbp_mmhg, dbp_mmhg, magnesium_mg_dl, phosphate_mg_dl, albumin_g_dl, alt_u_l |
    | intensivist | bilirubin_mg_dl, ptt_s, magnesium_sulfate_g, sodium_phosphate_mmol |
    | pharmacist | chloride_mmol_l, anion_gap_mmol_l, troponin_ng_l, bnp_pg_ml, haematocrit_percent, lactate_mmol_l |
    | pharmacist | ph, pco2_mmhg, po2_mmhg, heart_rate_bpm, map_mmhg, sbp_mmhg, dbp_mmhg, respiratory_rate_min |
    | pharmacist | spo2_percent, gcs, oxygen_fraction, ventilation_l_min, endoscopy, ultrafiltration_ml_h |
    | nurse | sodium_mmol_l, potassium_mmol_l, chloride_mmol_l, bicarbonate_mmol_l, urea_nitrogen_mg_dl |
    | nurse | creatinine_mg_dl, anion_gap_mmol_l, calcium_mg_dl, magnesium_mg_dl, phosphate_mg_dl, albumin_g_dl |
    | nurse | alt_u_l, bilirubin_mg_dl, beta_hydroxybutyrate_mmol_l, crp_mg_l, troponin_ng_l, bnp_pg_ml |
    | nurse | white_cells_k_ul, haemoglobin_g_dl, haematocrit_percent, platelets_k_ul, inr, ptt_s |
    | nurse | ph, pco2_mmhg, po2_mmhg |

    `describe(agent, observation)` gives them back in their units. `state()` is everybody's: the 229 entries.

    ## Rewards
    Each agent is given the reward of the ward (see `EHRWardEnv`): survival, discharge, stability, tests and treatments.

    ## Starting State
    As in `EHRWard-v0`, with the same patient for the same seed: `reset(seed=8)` here and there is one patient, and the
    same orders give him the same course, bit for bit. Options are patient factors, as there.

    ## Episode End
    Terminated by death or discharge; truncated after 14 days, or after `max_cycles` steps.

    ## Information
    `infos[agent]`, always the same names: of the team `hours`, `support`, `cost` with its parts, `reward_<term>`, and
    `spread_<measure>` of the measures in his chart; of himself the mask; and of the last step (0 after a reset)
    - `orders`: how many he gave;
    - `refused_orders`: of these, what the ward refused or the standing orders did not cover;
    - `held_orders`: what a colleague held back; `changed_orders`: what was given at a colleague's amount;
    - `holds`, `adjustments`: how many orders of colleagues he held back, and whose amount he changed;
    - `price_usd`: what was given because he ordered it, in US dollars. Where several ordered the same it is put down to
      the one whose amount counts, so the three prices add up to the ward's.

    `disputes()` lists who was overruled in what, and why.

    ## Arguments
    ```python
    import clinenv
    clinenv.make_team("CareTeam-v0", form="parallel", world="ehr-ward-small", max_cycles=None, patients="generated",
                      cohort=None, noise="none", missingness="none", hours=None, hours_per_step=None, device=None,
                      render_mode=None, uncertainty=True)
    ```
    - `form`: "parallel", this class; "aec", the same with one agent's turn after the other; "vector", many patients as
      one batch (`CareTeamVectorEnv`, with `num_envs`). `clinenv.envs.care_team` has `parallel_env` and `env` as
      PettingZoo's own environments do.
    - all others: see `EHRWardEnv`.

    ## Version History
    * v0: first version.
    """

    metadata: dict[str, Any] = {**CareTeamVectorEnv.metadata, "is_parallelizable": True}
    _form: type[CareTeamVectorEnv] = CareTeamVectorEnv

    def __init__(self, task: CareTeamTask | None = None, max_cycles: int | None = None, **arguments: Any) -> None:
        for name in ("num_envs", "autoreset_mode", "tensors"):
            if name in arguments:
                raise TypeError(f"{name} is of many patients: make_team(..., form='vector') takes it")
        self._team = self._form(1, task, autoreset_mode=AutoresetMode.DISABLED, max_cycles=max_cycles, **arguments)
        self.metadata = type(self).metadata
        self.render_mode = self._team.render_mode
        self.possible_agents = list(ROLES)
        self.agents: list[str] = []
        self.state_space: Space[Any] = self._team.state_space

    @property
    def team(self) -> CareTeamVectorEnv:
        """The batch of one behind it, with its simulator, chart and state: for planners and judges. Do not step it."""
        return self._team

    def observation_space(self, agent: str) -> Space[Any]:
        """The same object every time. Raises KeyError: no such agent."""
        return self._team.observation_space(agent)

    def action_space(self, agent: str) -> Space[Any]:
        """The same object every time. Raises KeyError: no such agent."""
        return self._team.action_space(agent)

    def labels(self, agent: str) -> list[str]:
        """What each entry of an action says: an order's name, "hold ORDER" or "adjust ORDER". Raises KeyError."""
        return self._team.labels(agent)

    def describe(self, agent: str, observation: Any) -> dict[str, Any]:
        """What an agent's observation says in units: label -> value. Raises KeyError, ValueError."""
        return self._team.describe(agent, observation)

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, dict[str, Any]]]:
        """A new patient: see `clinenv.env.ClinicalEnv.reset`.

        Raises:
            ValueError: a seed that is none, or options that are no patient factors; nothing has changed then.
            gymnasium.error.ClosedEnvironmentError: after `close`.
        """
        factors = {name: value for name, value in check_options(options).items() if name != _PROBED}
        if "reset_mask" in factors:
            raise ValueError("options['reset_mask'] is of many patients, here is one; leave it out")
        shown, infos = self._team.reset(seed=seed, options=factors)
        self.agents = list(ROLES)
        return _first(shown), {role: _plain(info) for role, info in infos.items()}

    def step(
        self, actions: Mapping[str, Any]
    ) -> tuple[dict[str, np.ndarray], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        """All act; the orders that come of it are given, and the world's step passes.

        Raises:
            ValueError: not a mapping of exactly the agents, or an action outside its space.
            gymnasium.error.ResetNeeded: the stay is over, or none has begun.
            gymnasium.error.ClosedEnvironmentError: after `close`.
        """
        batch = {role: _batch_of_one(action) for role, action in actions.items()} if _maps(actions) else actions
        shown, rewards, terminations, truncations, infos = self._team.step(batch)
        over = bool(terminations[ROLES[0]][0] or truncations[ROLES[0]][0])
        self.agents = [] if over else list(ROLES)
        return (
            _first(shown),
            {role: float(rewards[role][0]) for role in ROLES},
            {role: bool(terminations[role][0]) for role in ROLES},
            {role: bool(truncations[role][0]) for role in ROLES},
            {role: _plain(info) for role, info in infos.items()},
        )

    def disputes(self) -> list[tuple[str, str, str]]:
        """The orders of the last step that were not carried out as they were given: (role, order, why)."""
        return self._team.disputes(0)

    def state(self) -> np.ndarray:
        """float32 [229]: everybody's columns. Raises gymnasium.error.ResetNeeded before the first reset."""
        return self._team.state()[0]

    def snapshot(self) -> bytes:
        """The patient and his random key: the same orders give the same future."""
        return self._team.snapshot()

    def restore(self, snapshot: bytes, seed: int | None = None) -> dict[str, np.ndarray]:
        """Go back to a snapshot; see `clinenv.env.ClinicalEnv.restore`. Returns the observations there."""
        shown = _first(self._team.restore(snapshot, seed))
        self.agents = [] if bool(self._team.episodes.over()[0]) else list(ROLES)
        return shown

    def render(self) -> np.ndarray | None:
        """The ward's picture of the patient, uint8 [H, W, 3]; None in "human" mode, where it is shown in a window."""
        frames = self._team.render()
        return None if frames is None else frames[0]

    def close(self) -> None:
        """No step or reset is possible after it."""
        self._team.close()


class CareTeamDoseEnv(CareTeamEnv):
    """`CareTeam-v0` with amounts instead of switches: see `CareTeamEnv`, "Action Spaces"."""

    metadata = {**CareTeamDoseVectorEnv.metadata, "is_parallelizable": True}
    _form = CareTeamDoseVectorEnv


def env(**arguments: Any) -> AECEnv:
    """`CareTeam-v0` with one agent's turn after the other; the patient moves when all have spoken."""
    return parallel_to_aec(CareTeamEnv(**arguments))


def dose_env(**arguments: Any) -> AECEnv:
    """`CareTeamDose-v0` with one agent's turn after the other."""
    return parallel_to_aec(CareTeamDoseEnv(**arguments))


def _maps(actions: Any) -> bool:
    return isinstance(actions, Mapping)


def _batch_of_one(action: Any) -> Any:
    return action[None] if isinstance(action, np.ndarray) or hasattr(action, "unsqueeze") else [action]


def _first(shown: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {role: row_of(rows, 0) for role, rows in shown.items()}


def _plain(info: Mapping[str, Any]) -> dict[str, Any]:
    """Row 0 as Python numbers and arrays, without the masks."""
    return {
        name: value[0].copy() if value.ndim > 1 else value[0].item()
        for name, value in info.items()
        if not name.startswith("_")
    }
