"""SNOMED CT codes of ECG findings, as the PhysioNet/CinC Challenge 2021 writes them, to the labels used here.

Codes and names are the Challenge's own tables (dx_mapping_scored.csv and dx_mapping_unscored.csv of its evaluation
code, github.com/physionetchallenges/evaluation-2021; Reyna 2021, doi 10.23919/CinC53138.2021.9662687 (k)): all 30
scored diagnoses and those unscored that say one of our labels or imply it. Pairs that the Challenge scores as one are
one label.

A label has a category of ICD-10 chapter IX only where that category *means* the finding. A sinus bradycardia is R00, a
pacemaker Z95, an axis or a T wave no diagnosis at all; a voltage criterion is not a hypertrophied heart, and an ECG
reading "ischaemia" does not say which of I20 to I25 the patient has: they have none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["LABELS", "SCORED", "SNOMED", "SnomedError", "icd10_of", "labels_of", "parse_dx"]

# label -> (what it means, category of ICD-10 chapter IX or None)
LABELS: dict[str, tuple[str, str | None]] = {
    "sinus_rhythm": ("sinus rhythm at a normal rate", None),
    "sinus_bradycardia": ("sinus rhythm under 60 a minute", None),
    "sinus_tachycardia": ("sinus rhythm over 100 a minute", None),
    "sinus_arrhythmia": ("irregular sinus rhythm", None),
    "bradycardia": ("a slow rhythm, its kind not told", None),
    "atrial_fibrillation": ("atrial fibrillation", "I48"),
    "atrial_flutter": ("atrial flutter", "I48"),
    "supraventricular_tachycardia": ("supraventricular tachycardia", "I47"),
    "ventricular_tachycardia": ("ventricular tachycardia", "I47"),
    "wandering_pacemaker": ("wandering atrial pacemaker", None),
    "paced": ("paced rhythm", None),
    "pac": ("premature atrial or supraventricular beats", "I49"),
    "pvc": ("premature ventricular beats", "I49"),
    "av_block_1": ("first-degree atrioventricular block", "I44"),
    "av_block_2": ("second-degree atrioventricular block", "I44"),
    "av_block_3": ("third-degree atrioventricular block", "I44"),
    "prolonged_pr": ("long PR interval, not called a block", None),
    "lbbb": ("left bundle-branch block, complete or not told", "I44"),
    "incomplete_lbbb": ("incomplete left bundle-branch block", "I44"),
    "rbbb": ("right bundle-branch block, complete or not told", "I45"),
    "incomplete_rbbb": ("incomplete right bundle-branch block", "I45"),
    "lafb": ("left anterior fascicular block", "I44"),
    "lpfb": ("left posterior fascicular block", "I44"),
    "bundle_branch_block": ("bundle-branch block, its side not told", None),
    "ivcd": ("nonspecific intraventricular conduction disorder", "I45"),
    "preexcitation": ("ventricular pre-excitation", "I45"),
    "lvh": ("left ventricular hypertrophy by ECG criteria", None),
    "rvh": ("right ventricular hypertrophy by ECG criteria", None),
    "lae": ("left atrial enlargement by ECG criteria", None),
    "rae": ("right atrial enlargement by ECG criteria", None),
    "ischaemia_or_infarct": ("ischaemia, infarction or scar, any age and place", None),
    "old_infarct": ("infarction scar", "I25"),
    "acute_infarct": ("acute infarction", "I21"),
    "st_elevation": ("ST elevation", None),
    "st_depression": ("ST depression", None),
    "repolarisation": ("nonspecific ST-T abnormality", None),
    "t_wave_abnormal": ("abnormal T wave", None),
    "t_wave_inversion": ("inverted T wave", None),
    "q_wave_abnormal": ("abnormal Q wave", None),
    "poor_r_progression": ("poor R-wave progression", None),
    "low_voltage": ("low QRS voltages", None),
    "prolonged_qt": ("prolonged QT interval", None),
    "early_repolarisation": ("early repolarisation", None),
    "left_axis": ("left axis deviation", None),
    "right_axis": ("right axis deviation", None),
}

# The 30 scored diagnoses: code -> the labels it says.
SCORED: dict[str, tuple[str, ...]] = {
    "164889003": ("atrial_fibrillation",),
    "164890007": ("atrial_flutter",),
    "6374002": ("bundle_branch_block",),
    "426627000": ("bradycardia",),
    "733534002": ("lbbb",),  # "complete"; scored as one with 164909002
    "164909002": ("lbbb",),
    "713427006": ("rbbb",),  # "complete"; scored as one with 59118001
    "59118001": ("rbbb",),
    "270492004": ("av_block_1",),
    "713426002": ("incomplete_rbbb",),
    "39732003": ("left_axis",),
    "445118002": ("lafb",),
    "251146004": ("low_voltage",),
    "698252002": ("ivcd",),
    "426783006": ("sinus_rhythm",),
    "284470004": ("pac",),  # scored as one with 63593006
    "63593006": ("pac",),
    "10370003": ("paced",),
    "365413008": ("poor_r_progression",),
    "427172004": ("pvc",),  # scored as one with 17338001
    "17338001": ("pvc",),
    "164947007": ("prolonged_pr",),
    "111975006": ("prolonged_qt",),
    "164917005": ("q_wave_abnormal",),
    "47665007": ("right_axis",),
    "427393009": ("sinus_arrhythmia",),
    "426177001": ("sinus_bradycardia",),
    "427084000": ("sinus_tachycardia",),
    "164934002": ("t_wave_abnormal",),
    "59931005": ("t_wave_inversion",),
}

SNOMED: dict[str, tuple[str, ...]] = {
    **SCORED,
    "426749004": ("atrial_fibrillation",),  # chronic
    "282825002": ("atrial_fibrillation",),  # paroxysmal
    "314208002": ("atrial_fibrillation",),  # rapid
    "713422000": ("supraventricular_tachycardia",),  # atrial
    "251166008": ("supraventricular_tachycardia",),  # AV nodal reentry
    "233897008": ("supraventricular_tachycardia",),  # AV reentry
    "67198005": ("supraventricular_tachycardia",),  # paroxysmal
    "426761007": ("supraventricular_tachycardia",),
    "164895002": ("ventricular_tachycardia",),
    "425856008": ("ventricular_tachycardia",),  # paroxysmal
    "195101003": ("wandering_pacemaker",),
    "17366009": ("wandering_pacemaker",),  # so the Challenge names it; elsewhere the code is "atrial arrhythmia"
    "251268003": ("paced",),  # atrial
    "251266004": ("paced",),  # ventricular
    "251170000": ("pac",),  # blocked
    "251173003": ("pac",),  # atrial bigeminy
    "251168009": ("pac",),  # supraventricular bigeminy
    "164884008": ("pvc",),  # ventricular ectopics
    "11157007": ("pvc",),  # bigeminy
    "251180001": ("pvc",),  # trigeminy
    "251182009": ("pvc",),  # pairs
    "195042002": ("av_block_2",),
    "54016002": ("av_block_2",),  # Mobitz I
    "426183003": ("av_block_2",),  # Mobitz II
    "27885002": ("av_block_3",),
    "251120003": ("incomplete_lbbb",),
    "445211001": ("lpfb",),
    "82226007": ("ivcd",),  # diffuse
    "195060002": ("preexcitation",),
    "74390002": ("preexcitation",),  # Wolff-Parkinson-White
    "164873001": ("lvh",),
    "55827005": ("lvh",),  # left ventricular high voltage: the voltage criterion
    "89792004": ("rvh",),
    "67741000119109": ("lae",),
    "253352002": ("lae",),  # left atrial abnormality
    "446813000": ("lae",),  # hypertrophy
    "446358003": ("rae",),
    "253339007": ("rae",),
    "67751000119106": ("rae",),  # high voltage
    "164865005": ("ischaemia_or_infarct",),  # infarction, its age not told
    "54329005": ("ischaemia_or_infarct",),  # anterior infarction
    "57054005": ("ischaemia_or_infarct", "acute_infarct"),
    "164867002": ("ischaemia_or_infarct", "old_infarct"),
    "164861001": ("ischaemia_or_infarct",),
    "413444003": ("ischaemia_or_infarct",),  # acute
    "413844008": ("ischaemia_or_infarct",),  # chronic
    "426434006": ("ischaemia_or_infarct",),  # anterior
    "425419005": ("ischaemia_or_infarct",),  # inferior
    "425623009": ("ischaemia_or_infarct",),  # lateral
    "164931005": ("st_elevation",),
    "429622005": ("st_depression",),
    "704997005": ("st_depression",),  # inferior
    "428750005": ("repolarisation",),
    "55930002": ("repolarisation",),  # ST changes
    "164930006": ("repolarisation",),  # ST interval abnormal
    "428417006": ("early_repolarisation",),
}


class SnomedError(ValueError):
    """A Dx line that holds no SNOMED CT codes; the message names it and the form it should have."""


def parse_dx(text: str) -> tuple[str, ...]:
    """The codes of a header's Dx field: "164889003,59118001" -> ("164889003", "59118001").

    Raises:
        SnomedError: something in it is not a code of 6 to 18 digits.
    """
    words = [word for word in re.split(r"[,;\s]+", text.strip()) if word]
    wrong = [word for word in words if not re.fullmatch(r"[1-9][0-9]{5,17}", word)]
    if wrong or not words:
        raise SnomedError(
            f"Dx {text!r} is not a list of SNOMED CT codes ({', '.join(map(repr, wrong)) or 'it is empty'}); "
            "write it like 164889003,59118001"
        )
    return tuple(words)


def labels_of(codes: Iterable[str]) -> tuple[set[str], tuple[str, ...]]:
    """(labels these codes say, codes that stand for none of ours)."""
    codes = tuple(codes)
    said = {label for code in codes for label in SNOMED.get(code, ())}
    return said, tuple(code for code in codes if code not in SNOMED)


def icd10_of(label: str) -> str | None:
    """The category of chapter IX that means this label, or None.

    Raises:
        KeyError: not one of LABELS.
    """
    return LABELS[label][1]
