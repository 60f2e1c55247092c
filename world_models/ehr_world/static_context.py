"""What is known of a real stay as a whole, on the learned ward's static features and diagnoses.

From the context that was read from its discharge summary (`data.ehr.context`), else from the record's own ICD codes.
The chronic conditions are static context, known from the admission on; the acute diseases are discharge diagnoses,
which tell the future: they are filled only for a record that is told to its end. What neither tells stays NaN.
"""

from __future__ import annotations

from torch import Tensor

from world_models.data.ehr.context.icd_terms import is_coded, terms_of_codes
from world_models.data.ehr.context.schema import CHRONIC, StaticContext
from world_models.data.ehr.episode import PatientEpisode
from world_models.ehr_world.vocabulary import Vocabulary

__all__ = ["OLDEST_YEARS", "fill_static"]

OLDEST_YEARS = 100.0  # the ward knows nobody older


def fill_static(
    words: Vocabulary, e: PatientEpisode, context: StaticContext | None, whole: bool, static: Tensor, diagnosis: Tensor
) -> None:
    """Write one stay's rows: static [S] and diagnosis [D], NaN for what is not known.

    The record's age and sex go before the context's. `whole`: the record is told to its end. A context without a
    diagnosis tells no more about them than none.
    """
    age, female = e.age_years, e.sex_female
    told = context is not None and any(context.diagnoses())
    terms, known = terms_of_codes(e.diagnoses), is_coded(e.diagnoses)
    if context is not None:
        age = context.age_years if age is None else age
        female = context.sex == "female" if female is None and context.sex is not None else female
        terms, known = (context.terms(), True) if told else (terms, known)
    for column, feature in enumerate(words.static):
        if feature.name == "age_years" and age is not None:
            static[column] = min(age, OLDEST_YEARS)
        elif feature.name == "sex_female" and female is not None:
            static[column] = float(female)
        elif feature.name in CHRONIC and (known or feature.name in terms):
            static[column] = float(feature.name in terms)
    if whole:
        for column, disease in enumerate(words.diagnoses):
            if known or disease in terms:
                diagnosis[column] = float(disease in terms)
