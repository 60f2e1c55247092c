"""Pages of the physiology as the code tells it: the docstrings of the oracles' modules, with their sources."""

from __future__ import annotations

import ast

from docs.site.links import ROOT, Links

__all__ = ["generate"]

DOMAINS = {
    "drug_start": ("The oracle of the drug start", ("world_models/oracles/ecg_drug",)),
    "drug_prior": (
        "The learned prior of the drug start",
        tuple(f"world_models/ecg_wm/{name}.py" for name in ("latent_ode", "quadrature", "latent")),
    ),
    "ward": ("The oracle ward", ("world_models/oracles/ward", "world_models/oracles/ward/body")),
    "clinic": ("The oracle clinic", ("world_models/oracles/progression", "world_models/oracles/progression/ecg")),
    "signal": ("The ECG as a signal", ("world_models/ecg",)),
}


def generate(links: Links) -> dict[str, str]:
    """Page -> text: a domain's modules, each with what its docstring says."""
    return {f"physiology/{name}": _page(title, places) for name, (title, places) in DOMAINS.items()}


def _page(title: str, places: tuple[str, ...]) -> str:
    parts = [
        f"# {title}\n\nWhat each module says of its own laws, numbers and sources: (k) marks common knowledge without "
        "a paper at hand, (assumed) a number that somebody had to set.\n"
    ]
    for place in places:
        path = ROOT / place
        for file in sorted(path.glob("*.py")) if path.is_dir() else (path,):
            text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
            if file.name != "__init__.py" and text:
                module = file.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
                parts.append(f"## {file.stem.replace('_', ' ')}\n\n`{module}`\n\n{_safe(text)}\n")
    return "\n".join(parts)


def _safe(text: str) -> str:
    """A star between letters is a product and an underscore part of a name, neither emphasis; a tag is none."""
    lines = []
    for line in text.splitlines():
        code = line.startswith("    ")
        lines.append(line if code else line.replace(" * ", " \\* ").replace("<", "&lt;") if "`" not in line else line)
    return "\n".join(lines)
