"""The page of one counterfactual: self-contained HTML without scripts, styled like `clinenv simulate`'s."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from clinenv.commands.counterfactual.inputs import Transition, condition_name
from clinenv.commands.counterfactual.moved_latent import MovedLatent, Neighbour
from clinenv.commands.html_page import page_foot, page_head, table
from clinenv.rendering.counterfactual_charts import Dots, dots_svg, map_svg
from clinenv.rendering.ecg_paper import svg_paper
from clinenv.rendering.ecg_strip import svg_strip
from clinenv.rendering.latent_map import latent_map
from world_models.quantities.progression import SAMPLING_RATE_HZ

if TYPE_CHECKING:
    from world_models.cardiac_jepa.model import CardiacJEPAWorld
    from world_models.data.ecg.wfdb.reader import Recording

__all__ = ["page"]

MOST_DOTS = 24  # rows of the chart; the table has every code
DISCLAIMER = "Nothing here is a statement about a person or a ground for a decision about one."
_OWN_CSS = """
.move{display:grid;grid-template-columns:minmax(300px,1fr) minmax(300px,1fr);gap:12px}
@media screen and (max-width:760px){.move{grid-template-columns:1fr}}
.move table td:first-child{min-width:0}.split{margin:.2rem 0 .8rem}ul.plain{margin:.3rem 0;padding-left:20px}
.probe td:not(:first-child),.probe th{white-space:nowrap}.made td{overflow-wrap:anywhere}
"""


def _listed(names: list[str], one: str, several: str) -> str:
    """As in "I48 sets in" and "I48 and I50 set in"; nothing of no names."""
    if not names:
        return ""
    return f"{' and '.join([', '.join(names[:-1]), names[-1]])} {several}" if names[1:] else f"{names[0]} {one}"


def _label(code: str) -> str:
    return f"{code} {condition_name(code)}".strip()


def _intended(action: float) -> str:
    return "" if action == 0 else "sets in" if action > 0 else "resolves"


def _share(value: float, of: float) -> str:
    return f"{value / of:.2f}" if math.isfinite(of) and of > 0 else "-"


def _months(months: float) -> str:
    return f"{months:g} month{'' if months == 1 else 's'}"


def page(
    recording: Recording,
    transition: Transition,
    moved: MovedLatent,
    world: CardiacJEPAWorld,
    described: Mapping[str, str],
    warnings: Sequence[str],
    command: str,
) -> str:
    """The whole page as text.

    Args:
        recording: the ECG at 100 Hz.
        world: for its map of stored latents.
        described: what `clinenv.commands.worlds.about` says of it.
        command: the command line that makes the page again, or nothing.
    """
    codes = moved.codes
    begin, end = ([codes[i] for i in np.flatnonzero(transition.action == sign)] for sign in (1, -1))
    words = ", ".join(w for w in (_listed(begin, "sets in", "set in"), _listed(end, "resolves", "resolve")) if w)
    title = f"If {words}: the ECG's latent, moved"
    action = transition.action
    changes = "; ".join(f"{_label(codes[i])} {_intended(action[i])}" for i in np.flatnonzero(action))
    lead = f"{changes}; {_months(transition.months)} after ECG record {recording.name}"
    facts = _facts(recording, transition, moved, described)
    ecg = svg_paper(recording.ecg_mv.numpy(), recording.sampling_rate_hz, f"Record {recording.name}", "recorded")
    made = table(("", ""), list(described.items()))
    out = [
        page_head(title, lead, facts, warnings, _OWN_CSS),
        _caveats(moved),
        _probe(transition, moved),
        _distance(transition, moved, world),
        f'<section><h2>The recorded ECG</h2><figure><div class="scroll">{ecg}</div></figure></section>',
        _sheets("Stored ECGs nearest to the recorded one's latent", moved.nearest_before, "near"),
        _sheets("Stored ECGs nearest to the moved latent", moved.nearest_after, "moved"),
        f'<section><h2>What made these numbers</h2><div class="card made">{made}',
        page_foot(command, DISCLAIMER),
    ]
    return "".join(out)


def _facts(
    recording: Recording, transition: Transition, moved: MovedLatent, described: Mapping[str, str]
) -> list[tuple[str, str]]:
    age = "not stated" if recording.age_years is None else f"{recording.age_years:g} years"
    sex = "not stated" if recording.sex_female is None else "female" if recording.sex_female else "male"
    present = " ".join(c for c, has in zip(moved.codes, transition.present, strict=True) if has) or "none of the codes"
    whose = "as given" if transition.given else "read by the probe"
    return [
        ("ECG record", recording.name),
        ("Age", age),
        ("Sex", sex),
        ("Time in between", _months(transition.months)),
        (f"Present before ({whose})", present),
        ("World", described["World"]),
    ]


def _caveats(moved: MovedLatent) -> str:
    points = (
        "No waveform is generated. The model moves the ECG's latent, a list of "
        f"{moved.latents.shape[1]} numbers; a linear probe reads chances of conditions off it.",
        f"The stored ECGs below are other patients', chosen by distance among the {moved.stored} of the world's "
        "validation data whose ECGs its weights keep (simulated patients or real ones: see the foot of the page). None "
        "of them is this patient's ECG, now or later.",
        "It is no prediction for this person: it says what the model expects of a latent if the diagnosis changed, not "
        "that it will, and it was not checked on people in whom it did.",
        "A chance is the probe's, of an ECG with such a latent: not the risk of falling ill.",
    )
    listed = "".join(f"<li>{escape(p)}</li>" for p in points)
    return (
        '<section><h2>What this is, and what it is not</h2><div class="card">'
        f'<ul class="plain">{listed}</ul></div></section>'
    )


def _probe(transition: Transition, moved: MovedLatent) -> str:
    action = transition.action
    order = [int(i) for i in np.flatnonzero(action)] + moved.largest(action)
    dots = dots_svg([_dots(i, action, moved) for i in order[:MOST_DOTS]])
    more = f" The chart has the {MOST_DOTS} that change most, the table all." if len(moved.codes) > MOST_DOTS else ""
    return (
        '<section class="whole"><h2>What the probe reads, before and after</h2><p class="key">'
        f"{_key('border:2px solid var(--before)', 11, 'recorded ECG')}"
        f"{_key('background:var(--after)', 11, 'moved latent')}"
        f"{_key('background:var(--series)', 6, 'by time alone')}"
        '<span><i style="background:var(--muted);width:2px;height:12px"></i>threshold of the decision</span>'
        '<span><i style="background:var(--series);opacity:.25"></i>change that was asked for</span></p>'
        f'<div class="card"><div class="scroll">{dots}</div><p>{escape(_decisions(action, moved))}{more}</p></div>'
        f'</section><section><h2>In numbers</h2><div class="card probe">{_probe_table(action, moved)}'
        '<p class="muted">Time alone: the same months with '
        "no change of diagnosis. The probe is fitted to recorded ECGs' latents; the model's expectation varies less "
        "than those.</p></div></section>"
    )


def _key(style: str, size: int, words: str) -> str:
    """One round mark of a legend, `size` px wide."""
    return f'<span><i style="{style};border-radius:50%;width:{size}px;height:{size}px"></i>{words}</span>'


def _dots(i: int, action: np.ndarray, moved: MovedLatent) -> Dots:
    """The chart's row of code i."""
    return Dots(
        # of a code that was asked for the title has the name; in bold it would reach into the chart
        _label(moved.codes[i]) if action[i] == 0 else moved.codes[i],
        moved.before[i],
        moved.after[i],
        moved.without[i],
        moved.threshold[i],
        _intended(action[i]),
    )


def _decisions(action: np.ndarray, moved: MovedLatent) -> str:
    """Which decisions changed that were not asked to."""
    changed = [
        f"{_label(moved.codes[i])} ({'read now' if moved.after[i] >= moved.threshold[i] else 'no longer read'})"
        for i in moved.changed(action)
    ]
    if changed:
        return f"Decisions on other conditions that changed: {'; '.join(changed)}."
    return "No decision on another condition changed."


def _probe_table(action: np.ndarray, moved: MovedLatent) -> str:
    """Every code's numbers, those asked for first."""
    codes = moved.codes
    head = ("Condition", "Change asked", "Before", "After", "Time alone", "Threshold", "Decision")

    def decision(i: int) -> str:
        was, now = moved.before[i] >= moved.threshold[i], moved.after[i] >= moved.threshold[i]
        return ("present" if now else "absent") if was == now else "absent → present" if now else "present → absent"

    rows = [
        (
            _label(codes[i]),
            _intended(action[i]),
            f"{moved.before[i]:.3f}",
            f"{moved.after[i]:.3f}",
            f"{moved.without[i]:.3f}",
            f"{moved.threshold[i]:.3f}" if moved.threshold[i] < 1 else "none",
            decision(i),
        )
        for i in sorted(range(len(codes)), key=lambda i: (action[i] == 0, codes[i]))
    ]
    return table(head, rows)


def _distance(transition: Transition, moved: MovedLatent, world: CardiacJEPAWorld) -> str:
    d = moved.distances
    rows = [
        (what, f"{d[name]:.2f}", _share(d[name], d["two_visits"]), _share(d[name], d["two_patients"]))
        for what, name in (
            ("Recorded ECG to moved latent", "moved"),
            ("The same months, no change", "moved_without"),
            ("Between these two: the change alone", "by_the_transition"),
        )
    ]
    rows += [
        (what, f"{d[name]:.2f}" if math.isfinite(d[name]) else "-", "", "")
        for what, name in (
            ("Two visits, conditions differ (median)", "two_visits"),
            ("Two patients (median)", "two_patients"),
            ("What the model cannot foretell (RMS)", "not_foretold"),
        )
    ]
    distances = table(("Distance between latents", "", "÷ two visits", "÷ two patients"), rows, right=1)
    where = "In support" if moved.supported else "Out of support"
    return (
        '<section class="whole"><h2>How far the latent moved</h2><div class="move">'
        f'<div class="card">{distances}<p><b>{where}:</b> {escape(moved.support)}.</p></div>'
        f'<div class="card">{_map(transition, moved, world)}</div></div></section>'
    )


def _map(transition: Transition, moved: MovedLatent, world: CardiacJEPAWorld) -> str:
    plane = latent_map(world)
    assert plane is not None, "a cardiac JEPA's world has reference latents"
    column = next((int(i) for i in np.flatnonzero(transition.action)), 0)
    before, after, without = plane.place(moved.latents)
    picture = map_svg(plane.points, before, after, without, plane.conditions[:, column])
    return (
        f'<p class="key split">{_key("border:2px solid var(--before)", 11, "recorded ECG")}'
        f"{_key('background:var(--after)', 11, 'moved')}"
        f"{_key('background:var(--before)', 10, 'time alone')}"
        f"{_key('background:var(--series)', 8, f'stored, with {escape(moved.codes[column])}')}"
        f"{_key('background:var(--muted);opacity:.5', 8, 'without')}</p>"
        f"<figure>{picture}<figcaption>First two principal components of the stored latents: "
        f"{100 * plane.share:.0f} % of their variance, so neighbours here need not be neighbours in the whole latent."
        "</figcaption></figure>"
    )


def _sheets(head: str, near: Sequence[Neighbour], prefix: str) -> str:
    out = [f"<section><h2>{escape(head)}</h2>"]
    for i, n in enumerate(near):
        who = f"{'woman' if n.sex_female else 'man'}, {n.age_years:.0f} years"
        has = "; ".join(_label(c) for c in n.conditions) or "none of the codes"
        caption = f"<b>Distance {n.distance:.2f}</b>, {who}. Conditions: {escape(has)}."
        if n.ecg_mv is None:
            out.append(f'<div class="card"><p>Stored ECG {n.row}: {caption}</p></div>')
            continue
        sheet = svg_strip(n.ecg_mv, SAMPLING_RATE_HZ, f"Stored ECG {n.row} - another patient: {who}", f"{prefix}{i}")
        out.append(f'<figure><div class="scroll">{sheet}</div><figcaption>{caption}</figcaption></figure>')
    return "".join(out) + "</section>"
