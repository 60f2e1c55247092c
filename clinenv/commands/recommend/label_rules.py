"""What the drugs' US labels say of a patient like this one: contraindications, dose limits, cautions.

Each rule is a row of plain code with its source, in our own words; (k) marks what comes from general knowledge. The
list covers what an ECG, a few blood values and other drugs can tell; it is no substitute for the label.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

__all__ = ["KNOWN_OTHER_DRUGS", "Facts", "Finding", "findings"]

CONTRAINDICATED, CAUTION = "contraindicated", "caution"

TIKOSYN = "Tikosyn US label"
RANEXA = "Ranexa US label"
CALAN = "Calan US label"
QUINIDINE = "Quinidine sulfate US label"

# Tikosyn label, section 4: raise its level or block its tubular secretion
_NOT_WITH_DOFETILIDE = frozenset(
    "verapamil cimetidine trimethoprim ketoconazole hydrochlorothiazide prochlorperazine megestrol dolutegravir".split()
)
# Ranexa label, section 4: strong CYP3A inhibitors, CYP3A inducers
_NOT_WITH_RANOLAZINE = frozenset(
    """ketoconazole itraconazole clarithromycin nefazodone nelfinavir ritonavir indinavir saquinavir rifampin rifabutin
    rifapentine phenobarbital phenytoin carbamazepine""".split()
)
_LIMITS_RANOLAZINE = frozenset({"verapamil", "diltiazem", "erythromycin"})  # moderate CYP3A inhibitors: section 7.1
_ANTIARRHYTHMICS = frozenset({"dofetilide", "quinidine", "sotalol", "amiodarone", "flecainide", "disopyramide"})
KNOWN_OTHER_DRUGS: tuple[str, ...] = tuple(
    sorted(
        _NOT_WITH_DOFETILIDE
        | _NOT_WITH_RANOLAZINE
        | _LIMITS_RANOLAZINE
        | _ANTIARRHYTHMICS
        | {"ranolazine", "digoxin", "ivabradine"}
    )
)

# Dofetilide: section 4 and the dosing of section 2
DOFETILIDE_QTC_MS, DOFETILIDE_QTC_WIDE_QRS_MS, WIDE_QRS_MS = 440.0, 500.0, 120.0
QT_BELOW_BPM = 60.0  # below this rate the label goes by QT itself
# creatinine clearance above which the label starts with this dose, mg twice a day
DOFETILIDE_START_MG = ((60.0, 0.5), (40.0, 0.25), (20.0, 0.125))
RANOLAZINE_RENAL_ML_MIN = 60.0  # acute renal failure was seen below 30; renal function is to be watched below 60
RANOLAZINE_LIMITED_MG = 500.0
LOW_POTASSIUM_MMOL_L, LOW_MAGNESIUM_MMOL_L = 3.5, 0.7  # lower ends of the usual reference ranges (k)
LONG_PR_MS = 200.0  # first-degree block
SLOW_BPM = 50.0
LONG_QTC_MS = 470.0  # marked prolongation before a QT drug (k)
DOSE_TOLERANCE = 1.001  # doses are decimals


@dataclass(frozen=True)
class Facts:
    """What is known of the patient; None where it is not."""

    qtcf_ms: float
    qt_ms: float
    qrs_ms: float
    heart_rate_bpm: float
    pr_ms: float | None = None
    creatinine_clearance_ml_min: float | None = None
    potassium_mmol_l: float | None = None
    magnesium_mmol_l: float | None = None
    taking: tuple[str, ...] = ()  # other drugs, of KNOWN_OTHER_DRUGS


@dataclass(frozen=True)
class Finding:
    """One thing a label says of this drug, dose and patient."""

    severity: str  # CONTRAINDICATED or CAUTION
    text: str
    source: str

    @property
    def forbids(self) -> bool:
        """Whether the label rules the drug or the dose out."""
        return self.severity == CONTRAINDICATED


def findings(drug: str, dose_mg: float, who: Facts) -> tuple[Finding, ...]:
    """All that is found for one drug and single dose; a drug without rules has none."""
    rules = _RULES.get(drug)
    found = () if rules is None else tuple(rules(dose_mg, who))
    again = Finding(CAUTION, "the patient takes it already, and the simulation starts without it", "as stated")
    return (*found, again) if drug in who.taking else found


def _electrolytes(who: Facts, source: str) -> Iterator[Finding]:
    if who.potassium_mmol_l is not None and who.potassium_mmol_l < LOW_POTASSIUM_MMOL_L:
        yield Finding(
            CAUTION, f"potassium {who.potassium_mmol_l:g} mmol/L: low potassium is to be corrected first", source
        )
    if who.magnesium_mmol_l is not None and who.magnesium_mmol_l < LOW_MAGNESIUM_MMOL_L:
        yield Finding(
            CAUTION, f"magnesium {who.magnesium_mmol_l:g} mmol/L: low magnesium is to be corrected first", source
        )


def _dofetilide(dose_mg: float, who: Facts) -> Iterator[Finding]:
    limit = DOFETILIDE_QTC_WIDE_QRS_MS if who.qrs_ms > WIDE_QRS_MS else DOFETILIDE_QTC_MS
    slow = who.heart_rate_bpm < QT_BELOW_BPM
    interval, name = (who.qt_ms, "QT (rate below 60)") if slow else (who.qtcf_ms, "QTcF")
    if interval > limit:
        yield Finding(CONTRAINDICATED, f"{name} {interval:.0f} ms at the start, above {limit:g} ms", TIKOSYN)
    clearance = who.creatinine_clearance_ml_min
    if clearance is None:
        yield Finding(CAUTION, "creatinine clearance not given: the label chooses the dose by it", TIKOSYN)
    else:
        start = next((dose for above, dose in DOFETILIDE_START_MG[:2] if clearance > above), DOFETILIDE_START_MG[2][1])
        if clearance < DOFETILIDE_START_MG[2][0]:
            yield Finding(CONTRAINDICATED, f"creatinine clearance {clearance:g} mL/min, below 20", TIKOSYN)
        elif dose_mg > start * DOSE_TOLERANCE:
            yield Finding(
                CONTRAINDICATED,
                f"above the label's starting dose of {start * 1000:g} µg for a creatinine clearance of "
                f"{clearance:g} mL/min",
                TIKOSYN,
            )
    for other in sorted(_NOT_WITH_DOFETILIDE & set(who.taking)):
        yield Finding(CONTRAINDICATED, f"not with {other}", TIKOSYN)
    for other in sorted((_ANTIARRHYTHMICS - {"dofetilide"}) & set(who.taking)):
        yield Finding(CONTRAINDICATED, f"{other} is to be stopped for three half-lives first", TIKOSYN)
    yield from _electrolytes(who, TIKOSYN)


def _ranolazine(dose_mg: float, who: Facts) -> Iterator[Finding]:
    for other in sorted(_NOT_WITH_RANOLAZINE & set(who.taking)):
        yield Finding(CONTRAINDICATED, f"not with {other}", RANEXA)
    for other in sorted(_LIMITS_RANOLAZINE & set(who.taking)):
        if dose_mg > RANOLAZINE_LIMITED_MG * DOSE_TOLERANCE:
            yield Finding(CONTRAINDICATED, f"at most {RANOLAZINE_LIMITED_MG:g} mg twice daily with {other}", RANEXA)
    clearance = who.creatinine_clearance_ml_min
    if clearance is not None and clearance < RANOLAZINE_RENAL_ML_MIN:
        yield Finding(CAUTION, f"creatinine clearance {clearance:g} mL/min: watch the renal function", RANEXA)
    if who.qtcf_ms > LONG_QTC_MS:
        yield Finding(CAUTION, f"QTcF {who.qtcf_ms:.0f} ms at the start of a drug that prolongs it (k)", RANEXA)


def _verapamil(dose_mg: float, who: Facts) -> Iterator[Finding]:
    if "dofetilide" in who.taking:
        yield Finding(CONTRAINDICATED, "raises dofetilide's level: not with dofetilide", f"{CALAN}; {TIKOSYN}")
    if "ivabradine" in who.taking:
        yield Finding(CAUTION, "with ivabradine the rate may fall too far: avoid", CALAN)
    if "quinidine" in who.taking:
        yield Finding(CAUTION, "with quinidine marked hypotension was seen", CALAN)
    if "digoxin" in who.taking:
        yield Finding(CAUTION, "raises digoxin's level by half or more", CALAN)
    if who.pr_ms is not None and who.pr_ms > LONG_PR_MS:
        yield Finding(
            CAUTION,
            f"PR {who.pr_ms:.0f} ms: first-degree block may progress; of second or third degree it is forbidden",
            CALAN,
        )
    if who.heart_rate_bpm < SLOW_BPM:
        yield Finding(
            CAUTION,
            f"heart rate {who.heart_rate_bpm:.0f} bpm: if the sinus node is sick, forbidden without a pacemaker",
            CALAN,
        )


def _quinidine(dose_mg: float, who: Facts) -> Iterator[Finding]:
    if who.qtcf_ms > DOFETILIDE_QTC_WIDE_QRS_MS:
        yield Finding(CONTRAINDICATED, f"QTcF {who.qtcf_ms:.0f} ms at the start, above 500 ms (k)", QUINIDINE)
    elif who.qtcf_ms > LONG_QTC_MS:
        yield Finding(CAUTION, f"QTcF {who.qtcf_ms:.0f} ms at the start of a drug that prolongs it", QUINIDINE)
    for other in sorted((_ANTIARRHYTHMICS - {"quinidine"}) & set(who.taking)):
        yield Finding(CAUTION, f"with {other} the QT is prolonged twice over", QUINIDINE)
    if "digoxin" in who.taking:
        yield Finding(CAUTION, "doubles digoxin's level", QUINIDINE)
    if "ketoconazole" in who.taking:
        yield Finding(CAUTION, "ketoconazole raises its level", QUINIDINE)
    yield from _electrolytes(who, QUINIDINE)


_RULES: dict[str, Callable[[float, Facts], Iterator[Finding]]] = {
    "dofetilide": _dofetilide,
    "ranolazine": _ranolazine,
    "verapamil": _verapamil,
    "quinidine": _quinidine,
}
