"""The page of one counterfactual: self-contained HTML without scripts, in the dress of `clinenv simulate`'s report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from clinenv.commands.counterfactual.inputs import Asked, condition_name
from clinenv.commands.counterfactual.moved import Moved, Neighbour
from clinenv.commands.report import CSS, table
from clinenv.rendering.counterfactual_charts import Dots, dots_svg, map_svg
from clinenv.rendering.ecg_paper import svg_paper
from clinenv.rendering.ecg_strip import svg_strip
from clinenv.rendering.labels import NOT_FOR_CLINICAL_USE

if TYPE_CHECKING:
    from world_models.data.ecg.wfdb.reader import Recording

__all__ = ["page"]

MOST_DOTS = 24  # rows of the chart; the table has every code
_OWN_CSS = """
.move{display:grid;grid-template-columns:minmax(300px,1fr) minmax(300px,1fr);gap:12px}
@media screen and (max-width:760px){.move{grid-template-columns:1fr}}
.move table td:first-child{min-width:0}.split{margin:.2rem 0 .8rem}ul.plain{margin:.3rem 0;padding-left:20px}
.probe td:not(:first-child),.probe th{white-space:nowrap}.made td{overflow-wrap:anywhere}
"""


def _listed(names: list[str], one: str, several: str) -> str:
    """ "I48 sets in", "I48 and I50 set in"; nothing of no names."""
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
    asked: Asked,
    moved: Moved,
    world: Any,
    described: Mapping[str, str],
    warnings: Sequence[str],
    command: str,
) -> str:
    """The whole page as text.

    Args:
        recording: the ECG at 100 Hz.
        world: the `CardiacJEPAWorld`, for its map of stored latents.
        described: what `clinenv.commands.worlds.about` says of it.
        command: the command line that makes the page again, or nothing.
    """
    codes = moved.codes
    begin, end = ([codes[i] for i in np.flatnonzero(asked.action == sign)] for sign in (1, -1))
    words = ", ".join(w for w in (_listed(begin, "sets in", "set in"), _listed(end, "resolves", "resolve")) if w)
    title = f"If {words}: the ECG's latent, moved"
    changes = "; ".join(f"{_label(codes[i])} {_intended(asked.action[i])}" for i in np.flatnonzero(asked.action))
    out = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}{_OWN_CSS}</style></head><body>"
        f'<div class="banner" role="note">{NOT_FOR_CLINICAL_USE}</div><main><header><h1>{escape(title)}</h1>'
        f'<p class="lead">{escape(changes)}; {_months(asked.months)} after ECG record {escape(recording.name)}</p>'
        '<dl class="facts">'
    ]
    out += [
        f"<div><dt>{escape(a)}</dt><dd>{escape(b)}</dd></div>" for a, b in _facts(recording, asked, moved, described)
    ]
    out.append("</dl>")
    if warnings:
        out.append('<ul class="warn">' + "".join(f"<li>{escape(w)}</li>" for w in warnings) + "</ul>")
    out.append("</header>" + _not(moved) + _probe(asked, moved) + _distance(asked, moved, world))
    out.append('<section><h2>The recorded ECG</h2><figure><div class="scroll">')
    out.append(svg_paper(recording.ecg_mv.numpy(), recording.sampling_rate_hz, f"Record {recording.name}", "recorded"))
    out.append("</div></figure></section>")
    out.append(
        _sheets("Stored ECGs nearest to the recorded one's latent", moved.nearest_before, moved, recording, "near")
    )
    out.append(_sheets("Stored ECGs nearest to the moved latent", moved.nearest_after, moved, recording, "moved"))
    out.append(
        '<section><h2>What made these numbers</h2><div class="card made">' + table(("", ""), list(described.items()))
    )
    if command:
        out.append(f'<p class="muted">Made by</p><code>{escape(command)}</code>')
    out.append(
        f'</div></section><p class="muted">{NOT_FOR_CLINICAL_USE}. Nothing here is a statement about a person or a ground '
        "for a decision about one.</p></main></body></html>\n"
    )
    return "".join(out)


def _facts(recording: Recording, asked: Asked, moved: Moved, described: Mapping[str, str]) -> list[tuple[str, str]]:
    age = "not stated" if recording.age_years is None else f"{recording.age_years:g} years"
    sex = "not stated" if recording.sex_female is None else "female" if recording.sex_female else "male"
    present = " ".join(c for c, has in zip(moved.codes, asked.present, strict=True) if has) or "none of the codes"
    whose = "as given" if asked.given else "read by the probe"
    return [
        ("ECG record", recording.name), ("Age", age), ("Sex", sex), ("Time in between", _months(asked.months)),
        (f"Present before ({whose})", present), ("World", described["World"]),
    ]  # fmt: skip


def _not(moved: Moved) -> str:
    points = (
        "No waveform is generated. The model moves the ECG's latent, a list of "
        f"{moved.latents.shape[1]} numbers; a linear probe reads chances of conditions off it.",
        f"The stored ECGs below are other patients', chosen by distance among the {moved.stored} of the world's "
        "validation data whose ECGs its weights keep (simulated patients or real ones: see the foot of the page). None of "
        "them is this patient's ECG, now or later.",
        "It is no prediction for this person: it says what the model expects of a latent if the diagnosis changed, not "
        "that it will, and it was not checked on people in whom it did.",
        "A chance is the probe's, of an ECG with such a latent: not the risk of falling ill.",
    )
    listed = "".join(f"<li>{escape(p)}</li>" for p in points)
    return f'<section><h2>What this is, and what it is not</h2><div class="card"><ul class="plain">{listed}</ul></div></section>'


def _probe(asked: Asked, moved: Moved) -> str:
    codes, action = moved.codes, asked.action
    order = [int(i) for i in np.flatnonzero(action)] + moved.largest(action)
    rows = [
        Dots(
            _label(codes[i])
            if action[i] == 0
            else codes[i],  # the title names it; in bold it would reach into the chart
            moved.before[i],
            moved.after[i],
            moved.without[i],
            moved.threshold[i],
            _intended(action[i]),
        )
        for i in order[:MOST_DOTS]
    ]
    changed = moved.changed(action)
    if changed:
        told = "; ".join(
            f"{_label(codes[i])} ({'read now' if moved.after[i] >= moved.threshold[i] else 'no longer read'})"
            for i in changed
        )
        said = f"Decisions on other conditions that changed: {told}."
    else:
        said = "No decision on another condition changed."
    head = ("Condition", "Change asked", "Before", "After", "Time alone", "Threshold", "Decision")

    def decision(i: int) -> str:
        was, now = moved.before[i] >= moved.threshold[i], moved.after[i] >= moved.threshold[i]
        return ("present" if now else "absent") if was == now else "absent → present" if now else "present → absent"

    lines = [
        (
            _label(codes[i]), _intended(action[i]), f"{moved.before[i]:.3f}", f"{moved.after[i]:.3f}",
            f"{moved.without[i]:.3f}", f"{moved.threshold[i]:.3f}" if moved.threshold[i] < 1 else "none", decision(i),
        )
        for i in sorted(range(len(codes)), key=lambda i: (action[i] == 0, codes[i]))
    ]  # fmt: skip
    more = f" The chart has the {MOST_DOTS} that change most, the table all." if len(codes) > MOST_DOTS else ""
    return (
        '<section class="whole"><h2>What the probe reads, before and after</h2><p class="key">'
        '<span><i style="border:2px solid var(--before);border-radius:50%;width:11px;height:11px"></i>recorded ECG</span>'
        '<span><i style="background:var(--after);border-radius:50%;width:11px;height:11px"></i>moved latent</span>'
        '<span><i style="background:var(--series);border-radius:50%;width:6px;height:6px"></i>by time alone</span>'
        '<span><i style="background:var(--muted);width:2px;height:12px"></i>threshold of the decision</span>'
        '<span><i style="background:var(--series);opacity:.25"></i>change that was asked for</span></p>'
        f'<div class="card"><div class="scroll">{dots_svg(rows)}</div><p>{escape(said)}{more}</p></div>'
        f'</section><section><h2>In numbers</h2><div class="card probe">{table(head, lines)}'
        '<p class="muted">Time alone: the same months with '
        "no change of diagnosis. The probe is fitted to recorded ECGs' latents; the model's expectation varies less "
        "than those.</p></div></section>"
    )


def _distance(asked: Asked, moved: Moved, world: Any) -> str:
    d = moved.distances
    rows = [
        (what, f"{d[name]:.2f}", _share(d[name], d["two_visits"]), _share(d[name], d["two_patients"]))
        for what, name in (
            ("Recorded ECG to moved latent", "moved"),
            ("The same months, no change", "moved_without"),
            ("Between these two: the change alone", "by_the_transition"),
        )
    ]
    usual = [("Two visits, conditions differ (median)", "two_visits"), ("Two patients (median)", "two_patients"),
             ("What the model cannot foretell (RMS)", "not_foretold")]  # fmt: skip
    rows += [(what, f"{d[name]:.2f}" if math.isfinite(d[name]) else "-", "", "") for what, name in usual]
    told = table(("Distance between latents", "", "÷ two visits", "÷ two patients"), rows, right=1)
    where = "In support" if moved.supported else "Out of support"
    return (
        '<section class="whole"><h2>How far the latent moved</h2><div class="move">'
        f'<div class="card">{told}<p><b>{where}:</b> {escape(moved.support)}.</p></div>'
        f'<div class="card">{_map(asked, moved, world)}</div></div></section>'
    )


def _map(asked: Asked, moved: Moved, world: Any) -> str:
    from clinenv.rendering.latent_map import latent_map

    plane = latent_map(world)
    assert plane is not None, "a cardiac JEPA's world has reference latents"
    column = next((int(i) for i in np.flatnonzero(asked.action)), 0)
    before, after, without = plane.place(moved.latents)
    drawn = map_svg(plane.points, before, after, without, plane.conditions[:, column])
    return (
        '<p class="key split"><span><i style="border:2px solid var(--before);border-radius:50%;width:11px;height:11px"></i>'
        'recorded ECG</span><span><i style="background:var(--after);border-radius:50%;width:11px;height:11px"></i>moved</span>'
        '<span><i style="background:var(--before);border-radius:50%;width:10px;height:10px"></i>time alone</span>'
        '<span><i style="background:var(--series);border-radius:50%;width:8px;height:8px"></i>stored, with '
        f'{escape(moved.codes[column])}</span><span><i style="background:var(--muted);opacity:.5;border-radius:50%;width:8px;'
        f'height:8px"></i>without</span></p><figure>{drawn}<figcaption>First two principal components of the stored latents: '
        f"{100 * plane.share:.0f} % of their variance, so neighbours here need not be neighbours in the whole latent."
        "</figcaption></figure>"
    )


def _sheets(head: str, near: tuple[Neighbour, ...], moved: Moved, recording: Recording, prefix: str) -> str:
    out = [f"<section><h2>{escape(head)}</h2>"]
    for i, n in enumerate(near):
        who = f"{'woman' if n.sex_female else 'man'}, {n.age_years:.0f} years"
        has = "; ".join(_label(c) for c in n.conditions) or "none of the codes"
        caption = f"<b>Distance {n.distance:.2f}</b>, {who}. Conditions: {escape(has)}."
        if n.ecg_mv is None:
            out.append(f'<div class="card"><p>Stored ECG {n.row}: {caption}</p></div>')
            continue
        sheet = svg_strip(n.ecg_mv, 100.0, f"Stored ECG {n.row} - another patient: {who}", f"{prefix}{i}")
        out.append(f'<figure><div class="scroll">{sheet}</div><figcaption>{caption}</figcaption></figure>')
    return "".join(out) + "</section>"
