"""The antiarrhythmics: everything that is a property of one drug, in one table. A new drug is a new row here.

Derived from it: orders and dose bounds (`quantities.ecg_drug`), the environment's menu and dose scale, what the trial
fit assumes of each drug (`oracles.ecg_drug.fit`), the suppression of the arrhythmia (`oracles.ecg_drug.rhythm`) and
where training of the learned world starts (`ecg_wm.start_rates`). Fitted parameters do not stand here but in the fit's
JSON.

The order of the rows is the order of the action's columns: a new drug goes to the end.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ANTIARRHYTHMICS", "Drug", "KineticModel", "Suppression", "drug"]


@dataclass(frozen=True, slots=True)
class KineticModel:
    """Structure of a drug's kinetics, and where the fit's search starts.

    Starting values are typical literature values, apparent (over the bioavailability), for 70 kg; the fit does not
    depend on them. One compartment has neither `q` nor `v2`.
    """

    absorption_stages: int  # 1 or 2, of equal rate
    clearance: float  # L/h
    v1: float  # L, central
    ka: float  # per h, of each absorption stage
    lag: float  # h
    q: float | None = None  # L/h, between the compartments
    v2: float | None = None  # L, peripheral
    lag_log_sd: float = 0.0  # between people; above 0 only where the trial shows that the lag differs

    @property
    def compartments(self) -> int:
        """1 or 2."""
        return 1 if self.q is None else 2


@dataclass(frozen=True, slots=True)
class Suppression:
    """Shift of the logit of the arrhythmia's burden: greatest * C^hill / (C^hill + half^hill)."""

    greatest: float  # logit units
    half_ng_ml: float  # plasma concentration of half the effect
    hill: float


@dataclass(frozen=True, slots=True)
class Drug:
    """One antiarrhythmic. Doses are oral, in mg of the salt that the trial and the label name."""

    name: str  # of its orders and of the trial's arm
    salt: str  # the form in which doses are written
    menu_name: str  # as the menu writes it before the dose
    antiarrhythmic_class: str  # Vaughan Williams
    trial_dose_mg: float  # the single dose of the fitted trial (SCR-002)
    menu_mg: tuple[float, ...]  # usual single doses of the label's tablets and regimens
    largest_single_mg: float  # of the label's regimens: a continuous action of 1
    largest_daily_mg: float  # of the label
    # One order never exceeds this. Above both the trial's single dose and the label's largest (quinidine 600 mg), so
    # that an overdose can be simulated and a typing error cannot.
    order_limit_mg: float
    label: str  # where the label's doses stand (US prescribing information)
    kinetics: KineticModel
    saturating: tuple[str, ...]  # endpoints whose effect saturates: the fit gives them a C50
    steepening: tuple[
        str, ...
    ]  # endpoints whose effect grows faster than the concentration: the fit gives them a power
    suppression: Suppression  # sources: `oracles.ecg_drug.rhythm`
    learning_rates_per_h: tuple[float, ...]  # where `ecg_wm` starts: ka, ke, k12, k21, k_fast, k_slow


# The T wave's measures are bounded (a flat wave cannot grow flatter): the effect of the drugs that change it much
# saturates, and the fit says how far.
_T_WAVE = ("t_amplitude_uv", "t_asymmetry", "t_flatness", "erd_30_ms", "lrd_30_ms")

ANTIARRHYTHMICS: tuple[Drug, ...] = (
    Drug(
        name="ranolazine",
        salt="ranolazine, extended release",
        menu_name="ranolazine",
        antiarrhythmic_class="ID",
        trial_dose_mg=1500.0,
        menu_mg=(500.0, 1000.0),
        largest_single_mg=1000.0,
        largest_daily_mg=2000.0,
        order_limit_mg=2000.0,
        label="Ranexa US label, section 2: 500 to 1000 mg twice daily",
        kinetics=KineticModel(absorption_stages=2, clearance=60.0, v1=600.0, ka=1.0, lag=0.2),
        saturating=(),
        steepening=(),
        suppression=Suppression(0.9, 930.0, 2.0),  # 0.5 at the 1000 ng/mL that 750 mg bid averages
        learning_rates_per_h=(1.0, 0.10, 0.02, 0.10, 3.0, 0.6),
    ),
    Drug(
        name="dofetilide",
        salt="dofetilide",
        menu_name="dofetilide",
        antiarrhythmic_class="III",
        trial_dose_mg=0.5,
        menu_mg=(0.25, 0.5),
        largest_single_mg=0.5,
        largest_daily_mg=1.0,
        order_limit_mg=1.0,
        label="Tikosyn US label, section 2: 500 micrograms twice daily",
        # with a lag that differs between people -2 log L falls by 71
        kinetics=KineticModel(1, clearance=20.0, v1=130.0, ka=1.0, lag=0.3, q=15.0, v2=60.0, lag_log_sd=0.5),
        saturating=("tpeak_tend_ms", *_T_WAVE),
        steepening=("tpeak_tend_ms",),
        suppression=Suppression(3.0, 1.38, 2.0),  # 2.1 at the 2.1 ng/mL that 500 ug bid averages, 1.1 at half of it
        learning_rates_per_h=(1.0, 0.11, 0.05, 0.10, 3.0, 0.6),
    ),
    Drug(
        name="verapamil",
        salt="verapamil hydrochloride, immediate release",
        menu_name="verapamil",
        antiarrhythmic_class="IV",
        trial_dose_mg=120.0,
        menu_mg=(80.0, 120.0),
        largest_single_mg=120.0,
        largest_daily_mg=480.0,
        order_limit_mg=240.0,
        label="Calan US label: 240 to 480 mg a day in three or four doses",
        kinetics=KineticModel(1, clearance=240.0, v1=800.0, ka=5.0, lag=0.3, q=120.0, v2=1150.0),
        saturating=(),
        steepening=(),
        suppression=Suppression(0.4, 70.0, 1.0),  # 0.15 at the 42 ng/mL that 240 mg a day averages
        learning_rates_per_h=(3.0, 0.30, 0.20, 0.15, 3.0, 0.6),
    ),
    Drug(
        name="quinidine",
        salt="quinidine sulfate",
        menu_name="quinidine sulfate",
        antiarrhythmic_class="IA",
        trial_dose_mg=400.0,
        menu_mg=(200.0, 400.0),
        largest_single_mg=400.0,
        largest_daily_mg=1600.0,
        order_limit_mg=800.0,
        label="Quinidine sulfate US label: 400 mg every 6 hours for conversion",
        # with a lag that differs between people -2 log L falls by 96
        kinetics=KineticModel(1, clearance=21.0, v1=150.0, ka=2.0, lag=0.2, q=15.0, v2=60.0, lag_log_sd=0.5),
        saturating=("jt_peak_c_ms", "tpeak_tend_ms", *_T_WAVE),
        steepening=("tpeak_tend_ms",),
        suppression=Suppression(3.0, 2060.0, 1.5),  # 2.0 at the 3200 ng/mL that 400 mg every 6 h averages
        learning_rates_per_h=(2.0, 0.10, 0.05, 0.10, 3.0, 0.6),
    ),
)


def drug(name: str) -> Drug:
    """The antiarrhythmic of that name.

    Raises:
        KeyError: none; the message lists those there are.
    """
    for item in ANTIARRHYTHMICS:
        if item.name == name:
            return item
    raise KeyError(f"no drug {name!r} with fitted parameters; there are: {', '.join(d.name for d in ANTIARRHYTHMICS)}")
