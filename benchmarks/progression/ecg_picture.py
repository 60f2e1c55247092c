"""A sheet of the progression oracle's ECGs, one panel a condition and form, to be looked at.

    python -m benchmarks.progression.ecg_picture --out sheet.png --codes none I44 I48 --columns 2

Each panel shows the first patient, from --seed on, in whom the condition takes that form and shows on the ECG.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from PIL import Image

from benchmarks.common.results import HEIGHTS, made_by, write_figure
from clinenv.rendering.ecg_paper import paper_image
from world_models import keys
from world_models.oracles.progression.ecg.shown import FORMS, VISIBLE, shown_on_ecg
from world_models.oracles.progression.ecg.synthesis import synthesise_progression_ecg
from world_models.quantities.progression import CODES, CONDITIONS, SAMPLING_RATE_HZ, TREATMENTS

__all__ = ["main", "panel", "panels"]

_PATIENTS = 256


def panels(codes: list[str]) -> list[tuple[str, str | None, tuple[str, ...]]]:
    """(code, form or None, treatments) of each panel; "none" is a patient without any condition."""
    found: list[tuple[str, str | None, tuple[str, ...]]] = []
    for code in codes:
        group = "territory" if code == "I25" else code
        forms = [f for f, _ in FORMS.get(group, ())] or [None]
        found += [(code, form, ()) for form in forms]
        if code == "I44":
            found.append((code, "third_degree", ("pacemaker",)))
    return found


def panel(code: str, form: str | None, treatments: tuple[str, ...], seed: int = 0) -> Image.Image:
    """One ECG on paper."""
    key = keys.from_seed(seed, _PATIENTS)
    t = torch.zeros(_PATIENTS, dtype=torch.int64)
    condition = torch.zeros(_PATIENTS, len(CODES), dtype=torch.bool)
    fits = torch.ones(_PATIENTS, dtype=torch.bool)
    if code != "none":
        condition[:, CODES.index(code)] = True
        shown = shown_on_ecg(key, t, condition)
        if VISIBLE[code] != (0.0, 0.0):
            fits &= shown.sees(code)
        if form is not None:
            fits &= shown.is_form("territory" if code == "I25" else code, form)
    row = int(torch.nonzero(fits)[0])
    treated = torch.tensor([[name in treatments for name in TREATMENTS]])
    age, female = 40.0 + 40.0 * keys.uniform(key, 0, "picture/age"), keys.uniform(key, 0, "picture/sex").round()
    one = slice(row, row + 1)
    ecg = synthesise_progression_ecg(key[one], t[one], condition[one], age[one], female[one], treated)
    name = CONDITIONS.get(code, "no condition")
    extra = [f"({form})"] * bool(form) + [f"+ {x}" for x in treatments]
    words = " ".join((code, name, *extra))
    return paper_image(ecg[0].numpy(), SAMPLING_RATE_HZ, words)


def main(arguments: list[str] | None = None) -> None:
    """Paint the sheet."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", required=True, help="PNG to write")
    parser.add_argument("--codes", nargs="+", default=["none", *CODES], help="conditions; none: healthy")
    parser.add_argument("--columns", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=0.6, help="1 is 4 pixels to the millimetre")
    args = parser.parse_args(arguments)
    unknown = [c for c in args.codes if c not in CODES and c != "none"]
    if unknown:
        parser.error(f"unknown codes {unknown}: choose from none, {', '.join(CODES)}")
    if args.columns < 1 or not 0.05 <= args.scale <= 2.0:
        parser.error(f"--columns {args.columns} must be at least 1 and --scale {args.scale} within 0.05 to 2")
    torch.set_num_threads(1)
    pictures = [panel(*each, seed=args.seed) for each in panels(args.codes)]
    size = tuple(int(x * args.scale) for x in pictures[0].size)
    lines = -(-len(pictures) // args.columns)
    sheet = Image.new("RGB", (size[0] * args.columns, size[1] * lines), "white")
    for i, picture in enumerate(pictures):
        sheet.paste(picture.resize(size, Image.LANCZOS), (size[0] * (i % args.columns), size[1] * (i // args.columns)))
    out = Path(args.out)
    made = made_by("benchmarks.progression.ecg_picture", arguments, {"first patient": args.seed}, files=[HEIGHTS])
    write_figure(out, sheet, made)
    print(f"{out}: {len(pictures)} ECGs")


if __name__ == "__main__":
    main()
