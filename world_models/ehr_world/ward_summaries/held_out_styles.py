"""The styles that readers are judged on: a letter to the family doctor, telegrams, and a form with other headings.

They were written after the rules and the prompt. Neither may be changed in their light; the prompt's worked example was
changed later, tried on the development styles alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from world_models.ehr_world.ward_summaries.facts import StayFacts
from world_models.ehr_world.ward_summaries.held_out_words import DENIED, WORDS
from world_models.ehr_world.ward_summaries.wording import Dice, Named, Style, Vocabulary

__all__ = ["HELD_OUT"]

_EVIDENCE = ("the evidence for which was", "which we recognised by", "as suggested by", "his or her chart showing")


def _denied(facts: StayFacts, dice: Dice) -> str:
    return dice.pick(DENIED[dice.pick(facts.absent, "denied")], "denied how")


def _given(facts: StayFacts, words: Vocabulary) -> str:
    said = [words.treatments[name] for name in facts.treatments if name in words.treatments]
    return " and ".join(said) or "fluids by mouth"


def _parted(conditions: Sequence[Named]) -> tuple[list[Named], list[Named]]:
    """Complications of the stay, and what the patient had before."""
    return [c for c in conditions[1:] if c.condition.findings], [c for c in conditions[1:] if not c.condition.findings]


def _allergy_sentence(facts: StayFacts, allergies: Sequence[str], dice: Dice) -> str:
    if facts.allergies is None:
        return ""
    if not allergies:
        return dice.pick(("We are not aware of any drug allergies.", "No drug sensitivities are recorded."), "none")
    return f"Please note the allergy to {' and '.join(allergies)}."


def _letter(
    facts: StayFacts, conditions: Sequence[Named], allergies: Sequence[str], words: Vocabulary, dice: Dice
) -> str:
    """Prose without headings."""
    complications, chronic = _parted(conditions)
    she, noun = ("She", "lady") if facts.female else ("He", "gentleman")
    first = conditions[0]
    why = f", {dice.pick(_EVIDENCE, 'evidence')} {first.reason}" if first.reason else ""
    before = (
        f" {she} is known to us for {' and '.join(c.name for c in chronic)}, and had {dice.pick(words.past, 'past')}."
        if chronic
        else f" {she} had {dice.pick(words.past, 'past')} but has been well since."
    )
    went = " ".join(
        f"The stay was further marked by {c.name}, {dice.pick(_EVIDENCE, f'evidence/{c.name}')} {c.reason}."
        for c in complications
    )
    end = (
        "Sadly, the patient died on the ward."
        if facts.died
        else f"{she} left us in good spirits after {facts.days} days."
    )
    paragraphs = [
        "Dear Colleague,",
        f"Thank you for referring this {facts.age_years}-year-old {noun}, who was under our care for {first.name}{why}."
        f"{before} {_denied(facts, dice)}",
        f"{went} We gave {_given(facts, words)}. {end}".strip(),
        f"{_allergy_sentence(facts, allergies, dice)} {dice.pick(words.family, 'family')}".strip(),
        "Yours sincerely,",
    ]
    return "\n\n".join(paragraphs)


def _telegram(
    facts: StayFacts, conditions: Sequence[Named], allergies: Sequence[str], words: Vocabulary, dice: Dice
) -> str:
    """Everything in a few lines, headings abbreviated or none."""
    complications, chronic = _parted(conditions)
    sex = "F" if facts.female else "M"
    told = (
        "" if facts.allergies is None else "ADR: " + (" + ".join(allergies) or dice.pick(("nil known", "nil"), "none"))
    )
    because = [f"{c.name} [{c.reason}]" if c.reason else c.name for c in (conditions[0], *complications)]
    lines = [
        f"{facts.age_years}{sex}, via A&E. PMHx {' | '.join(c.name for c in chronic) or 'nil'}",
        told,
        f"Imp: {because[0]}",
        f"Also: {' + '.join(because[1:])}" if because[1:] else "",
        f"FHx: {dice.pick(words.family, 'family')}",
        f"{_denied(facts, dice)} Rx {_given(facts, words)}. {'RIP' if facts.died else f'Home d{facts.days}'}",
    ]
    return "\n".join(line for line in lines if line)


def _form(
    facts: StayFacts, conditions: Sequence[Named], allergies: Sequence[str], words: Vocabulary, dice: Dice
) -> str:
    """An electronic form: fields in capitals, diagnoses by rank with their evidence below."""
    complications, chronic = _parted(conditions)
    ranked = [conditions[0], *complications, *chronic]
    told = "NOT RECORDED" if facts.allergies is None else ", ".join(allergies) or "NIL KNOWN"
    lines = [
        f"PATIENT DETAILS  age: {facts.age_years}  sex: {'female' if facts.female else 'male'}",
        f"SENSITIVITIES  {told}",
        "CODED CONDITIONS THIS EPISODE",
        *(
            f"  rank {rank} >> {c.name}" + (f"\n      evidence >> {c.reason}" if c.reason else "")
            for rank, c in enumerate(ranked, 1)
        ),
        f"NOT THOUGHT TO APPLY  {_denied(facts, dice)}",
        f"BACKGROUND  {dice.pick(words.past, 'past')}. {dice.pick(words.family, 'family')}",
        f"MANAGEMENT  {_given(facts, words)}",
        f"OUTCOME  {'deceased' if facts.died else 'discharged alive'}, day {facts.days}",
    ]
    return "\n".join(lines)


HELD_OUT = (
    Style("letter", WORDS, _letter, held_out=True),
    Style("telegram", WORDS, _telegram, held_out=True),
    Style("form", WORDS, _form, held_out=True),
)
