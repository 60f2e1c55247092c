"""The effects of orders that are known well enough to test a record with: target, window, whom, and the literature.

Each question is a target trial (Hernan & Robins 2016, doi 10.1093/aje/kwv254): who could be given the order, when it
is begun, what is measured afterwards and when. All of it is fixed from pharmacology before any result. `low` and
`high` are what a usual dose does by the literature; (k) marks common clinical knowledge that was not looked up.

A control is an outcome that the order does not move within the window, or far less than its target (Lipsitch 2010, doi
10.1097/EDE.0b013e3181d61eeb): what it seems to do to that is confounding that is left.
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["QUESTIONS", "Question", "by_name"]


@dataclass(frozen=True, slots=True)
class Question:
    """One order, and what it is known to do."""

    name: str
    order: str  # of intervention_items; "" where the order is a charted setting
    column: str  # the ward's intervention
    kind: str  # rate: a start or a rise; dose: an amount; setting: a charted value that is raised
    units: dict[str, float]  # of the record's dose or rate, with the factor to `dose_unit`
    dose_unit: str
    usual_dose: float
    least: float  # smallest rise that counts as one, in `dose_unit`; of an amount: smallest dose
    washout_h: float  # none begun so long before a decision
    target: str
    baseline: tuple[float, float]  # range of the target's last value, both ends included
    baseline_age_h: float  # that value is at most so old
    from_h: float  # the outcome: its next value so many hours after the decision
    to_h: float
    control: str
    control_to_h: float
    low: float  # effect of a usual dose on the target, in its unit
    high: float
    literature: str
    mean_of_window: bool = False  # the outcome is a volume: its sum over the window, an hour
    not_routes: tuple[str, ...] = field(default=())  # beginnings of routes, upper case, that are another order

    @property
    def sign(self) -> float:
        """1 if the order raises the target, -1 if it lowers it."""
        return 1.0 if self.low + self.high > 0 else -1.0


QUESTIONS: tuple[Question, ...] = (
    Question(
        name="norepinephrine on pressure",
        order="norepinephrine",
        column="norepinephrine_ug_kg_min",
        kind="rate",
        units={"ug/kg/min": 1.0},
        dose_unit="ug/kg/min",
        usual_dose=0.1,
        least=0.02,
        washout_h=1.0,
        target="map_mmhg",
        baseline=(30.0, 75.0),
        baseline_age_h=3.0,
        from_h=0.25,
        to_h=3.0,
        control="chloride_mmol_l",
        control_to_h=12.0,
        low=10.0,
        high=20.0,
        literature="0.1 ug/kg/min in septic shock: MAP +10 to +20 (Oualha 2014 PMC4239982; Beloeil 2005)",
    ),
    Question(
        name="insulin on glucose",
        order="insulin",
        column="insulin_units_h",
        kind="rate",
        units={"[U]/h": 1.0},
        dose_unit="U/h",
        usual_dose=7.0,
        least=0.5,
        washout_h=1.0,
        target="glucose_mg_dl",
        baseline=(140.0, 1500.0),
        baseline_age_h=6.0,
        from_h=0.75,
        to_h=4.0,
        control="haemoglobin_g_dl",
        control_to_h=12.0,
        low=-150.0,
        high=-100.0,
        literature="7 U/h in ketoacidosis: -50 to -75 mg/dL an hour (k), here over 2 h; less for who is less ill",
    ),
    Question(
        name="potassium chloride on potassium",
        order="potassium_chloride",
        column="potassium_chloride_mmol",
        kind="dose",
        units={"mmol": 1.0},
        dose_unit="mmol",
        usual_dose=20.0,
        least=5.0,
        washout_h=4.0,
        target="potassium_mmol_l",
        baseline=(2.0, 4.5),
        baseline_age_h=12.0,
        from_h=1.5,
        to_h=12.0,
        control="sodium_mmol_l",
        control_to_h=12.0,
        low=0.15,
        high=0.35,
        literature="20 mmol: K +0.25 mmol/L (Kruse & Carlson 1990 PMID 2310280), +-0.1 (k)",
    ),
    Question(
        name="inspired oxygen on saturation",
        order="",
        column="oxygen_fraction",
        kind="setting",
        units={},
        dose_unit="fraction",
        usual_dose=0.2,
        least=0.1,
        washout_h=1.0,
        target="spo2_percent",
        baseline=(70.0, 96.0),
        baseline_age_h=3.0,
        from_h=1.0,
        to_h=4.0,
        control="temperature_c",
        control_to_h=6.0,
        low=1.0,
        high=6.0,
        literature="+0.2 of inspired oxygen at SpO2 up to 96 %: +1 to +6 % by shunt (k)",
    ),
    Question(
        name="inspired oxygen on PaO2",
        order="",
        column="oxygen_fraction",
        kind="setting",
        units={},
        dose_unit="fraction",
        usual_dose=0.2,
        least=0.1,
        washout_h=1.0,
        target="po2_mmhg",
        baseline=(30.0, 120.0),
        baseline_age_h=12.0,
        from_h=0.25,
        to_h=6.0,
        control="haemoglobin_g_dl",
        control_to_h=12.0,
        low=10.0,
        high=60.0,
        literature="+0.2 of inspired oxygen: +10 to +60 mmHg at PaO2/FiO2 of 50 to 300, if that stays (k)",
    ),
    Question(
        name="furosemide on urine",
        order="furosemide",
        column="furosemide_mg",
        kind="dose",
        units={"mg": 1.0},
        dose_unit="mg",
        usual_dose=40.0,
        least=5.0,
        washout_h=6.0,
        target="urine_output_ml",
        baseline=(0.0, 250.0),
        baseline_age_h=6.0,
        from_h=0.0,
        to_h=6.0,
        control="temperature_c",
        control_to_h=6.0,
        low=60.0,
        high=200.0,
        literature="40 mg i.v.: 1 to 1.5 L in 6 h, +110 to +200 mL/h, with sound kidneys (k); half when they fail",
        mean_of_window=True,
        not_routes=("PO", "NG", "ORAL"),
    ),
    Question(
        name="red cells on haemoglobin",
        order="red_cells",
        column="red_cells_units",
        kind="dose",
        units={"mL": 1 / 350},
        dose_unit="units of 350 mL",
        usual_dose=1.0,
        least=0.2,
        washout_h=12.0,
        target="haemoglobin_g_dl",
        baseline=(4.0, 10.0),
        baseline_age_h=24.0,
        from_h=2.0,
        to_h=24.0,
        control="sodium_mmol_l",
        control_to_h=24.0,
        low=0.8,
        high=1.2,
        literature="one unit: Hgb +1 g/dL (k)",
    ),
)


def by_name(name: str) -> Question:
    """The question of that name, or the first about that order, column or target.

    Raises:
        ValueError: there is none; the message lists them.
    """
    for q in QUESTIONS:
        if name in (q.name, q.order, q.column):
            return q
    raise ValueError(f"no question {name!r}; there are: {', '.join(q.name for q in QUESTIONS)}")
