"""The CiPA table: 28 drugs, their ion-channel block and their torsade risk. No kinetics, no doses in mg."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

__all__ = ["CIPA_CITATION", "CipaDrug", "cipa_table"]

CIPA_CITATION = (
    "FDA CiPA in-vitro validation data; method and drug list: Colatsky 2016, doi 10.1016/j.vascn.2016.06.002; "
    "Li 2019, doi 10.1002/cpt.1184"
)


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
