"""The drugs: what the trial gave, what the label allows, and the CiPA table of ion-channel block.

Half-lives and clearances are not written here: they are fitted from the trial (`trial`), and stand in its JSON.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

__all__ = ["CIPA_CITATION", "DRUGS", "CipaDrug", "Drug", "cipa_table", "drug"]

CIPA_CITATION = (
    "FDA CiPA in-vitro validation data; method and drug list: Colatsky 2016, doi 10.1016/j.vascn.2016.06.002; "
    "Li 2019, doi 10.1002/cpt.1184"
)


@dataclass(frozen=True, slots=True)
class Drug:
    """One drug of the trial. Doses are oral, in mg of the salt the trial and the label name."""

    name: str
    salt: str  # the form the dose is written in
    antiarrhythmic_class: str  # Vaughan Williams
    trial_dose_mg: float  # the single dose of SCR-002
    dose_levels_mg: tuple[float, float]  # two usual single oral doses, within the label
    label_max_daily_mg: float  # the label's maximum a day (US prescribing information)
    molar_mass_g_per_mol: float  # of the free base
    absorption_stages: int  # structure of the fitted kinetics
    compartments: int
    label: str  # where the maximum stands


DRUGS: tuple[Drug, ...] = (
    Drug("ranolazine", "ranolazine, extended release", "ID", 1500.0, (500.0, 1000.0), 2000.0, 427.54, 2, 1,
         "Ranexa US label, section 2: 500 to 1000 mg twice daily"),
    Drug("dofetilide", "dofetilide", "III", 0.5, (0.25, 0.5), 1.0, 441.56, 1, 2,
         "Tikosyn US label, section 2: 500 micrograms twice daily"),
    Drug("verapamil", "verapamil hydrochloride, immediate release", "IV", 120.0, (80.0, 120.0), 480.0, 454.60, 1, 2,
         "Calan US label: 240 to 480 mg a day in three or four doses"),
    Drug("quinidine", "quinidine sulfate", "IA", 400.0, (200.0, 400.0), 1600.0, 324.42, 1, 2,
         "Quinidine sulfate US label: 400 mg every 6 hours for conversion"),
)  # fmt: skip


def drug(name: str) -> Drug:
    """The trial drug of that name.

    Raises:
        KeyError: none; the message lists those there are.
    """
    for item in DRUGS:
        if item.name == name:
            return item
    raise KeyError(f"no drug {name!r} with fitted parameters; there are: {', '.join(d.name for d in DRUGS)}")


@dataclass(frozen=True, slots=True)
class CipaDrug:
    """Ion-channel block of one CiPA drug: (IC50 in nM, Hill) per channel; IC50 0 = no block or unmeasured."""

    name: str
    torsade_class: int  # 2 high, 1 intermediate, 0 low
    free_cmax_nm: float
    herg: tuple[float, float]
    calcium: tuple[float, float]
    late_sodium: tuple[float, float]
    sodium: tuple[float, float]


@lru_cache(maxsize=1)
def cipa_table() -> dict[str, CipaDrug]:
    """The 28 CiPA drugs by name. hERG from the FDA White Oak measurements, from Crumb or HTS where those have none."""
    text = (files("world_models.oracles.ecg_drug") / "cipa28.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    levels = {"high": 2, "intermediate": 1, "low": 0}
    table = {}
    for row in rows:
        first = float(row["hERG_IC50_nM_FDA_WhiteOak"]), float(row["hERG_h_FDA_WhiteOak"])
        second = float(row["hERG_IC50_nM_Crumb_or_HTS"]), float(row["hERG_h_Crumb_or_HTS"])
        table[row["drug"]] = CipaDrug(
            name=row["drug"],
            torsade_class=levels[row["TdP_class"]],
            free_cmax_nm=float(row["free_Cmax_nM"]),
            herg=first if first[0] > 0 else second,
            calcium=(float(row["CaL_IC50_nM"]), float(row["CaL_h"])),
            late_sodium=(float(row["NaL_IC50_nM"]), float(row["NaL_h"])),
            sodium=(float(row["Na_IC50_nM"]), float(row["Na_h"])),
        )
    return table
