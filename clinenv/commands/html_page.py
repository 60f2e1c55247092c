"""What the HTML pages of the commands share: one self-contained file, no script, font or picture from anywhere else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from clinenv.rendering.labels import NOT_FOR_CLINICAL_USE

__all__ = ["page_foot", "page_head", "table"]

CSS = """
:root{color-scheme:light dark;--back:#f6f6f8;--card:#fff;--ink:#14141c;--muted:#5d6068;--rule:#e2e2e8;--series:#1c549e;
--recorded:#0f7b5f;--before:#72757e;--after:#b3470b;--warn:#b01c2e;--warn-back:#fdecee;--dose:#a06a00;--paper:#fffaf7;
--grid:#fae1db;--grid-bold:#eeb4ac}
@media screen and (prefers-color-scheme:dark){:root{--back:#121317;--card:#1b1d23;--ink:#e9eaee;--muted:#9da1ab;
--rule:#32353d;--series:#7fb2f0;--recorded:#4cc3a0;--before:#a9adb8;--after:#f0935a;--warn:#ff8593;--warn-back:#3a1a20;
--dose:#e0ac4c;--paper:#1d1718;--grid:#33211f;--grid-bold:#53302d}}
*{box-sizing:border-box}
body{margin:0;background:var(--back);color:var(--ink);font:15px/1.5 system-ui,"Segoe UI",Roboto,sans-serif}
main{max-width:1100px;margin:0 auto;padding:20px 20px 48px}
.banner{background:var(--warn-back);color:var(--warn);font-weight:600;text-align:center;padding:7px 12px}
h1{font-size:1.5rem;line-height:1.25;margin:.5rem 0 .1rem}
h2{font-size:1.08rem;margin:1.7rem 0 .55rem}
p{margin:.35rem 0}
.lead{font-size:1.05rem;margin:0}
.muted{color:var(--muted);font-size:.88rem}
.card{background:var(--card);border:1px solid var(--rule);border-radius:8px;padding:12px 14px}
.facts{display:flex;flex-wrap:wrap;gap:6px 26px;margin:.8rem 0 0}
.facts dt{color:var(--muted);font-size:.8rem}
.facts dd{margin:0;font-weight:600}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(330px,1fr));gap:12px}
.grid h3{font-size:.95rem;margin:0}
.grid h3 span{display:block;font-weight:400;color:var(--muted);font-size:.85rem}
svg{display:block;max-width:100%;height:auto}
figure{margin:0 0 14px;break-inside:avoid}
.beats svg{max-height:440px;margin:0 auto}
figcaption{color:var(--muted);font-size:.88rem;margin-top:4px}
.paper{border:1px solid var(--grid-bold);width:100%}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:5px 10px 5px 0;border-bottom:1px solid var(--rule);vertical-align:top}
th{font-weight:600;color:var(--muted);font-size:.84rem}
td.n,th.n{text-align:right;white-space:nowrap;padding-right:18px}
tr:last-child td{border-bottom:0}
table.narrow{width:auto;min-width:300px}
td:first-child{min-width:8.5em}
ul.warn{margin:.8rem 0 0;padding:9px 12px 9px 30px;background:var(--warn-back);border-radius:8px}
code{font:.83rem/1.5 ui-monospace,monospace;overflow-wrap:anywhere}
.key{display:flex;gap:18px;flex-wrap:wrap;font-size:.85rem;color:var(--muted);margin:0 0 .5rem}
.key i{display:inline-block;width:14px;height:10px;margin-right:5px}
@page{size:A4 landscape;margin:10mm}
@media print{body{background:#fff;font-size:10.5pt}main{max-width:none;padding:0}.card{border:0;padding:0}
.paper{width:265mm;max-width:none;border:0}.grid{grid-template-columns:repeat(3,1fr)}h2{break-after:avoid}
.grid>*,tr,.card,.whole{break-inside:avoid}*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
"""


def page_head(
    title: str, lead: str, facts: Iterable[tuple[str, str]], warnings: Sequence[str], extra_css: str = ""
) -> str:
    """The page as far as its first section: style, banner, title, facts in a row, warnings. Everything is escaped here.

    Args:
        lead: one line below the title.
        facts: (what, value with unit).
        extra_css: a page's own rules, after the shared ones.
    """
    out = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}{extra_css}</style></head><body>"
        f'<div class="banner" role="note">{NOT_FOR_CLINICAL_USE}</div><main><header><h1>{escape(title)}</h1>'
        f'<p class="lead">{escape(lead)}</p><dl class="facts">'
    ]
    out += [f"<div><dt>{escape(what)}</dt><dd>{escape(value)}</dd></div>" for what, value in facts]
    out.append("</dl>")
    if warnings:
        out.append('<ul class="warn">' + "".join(f"<li>{escape(w)}</li>" for w in warnings) + "</ul>")
    return "".join(out) + "</header>"


def page_foot(command: str, disclaimer: str) -> str:
    """The end of the page's last section, which says what made the numbers, and of the page.

    Args:
        command: the command line that makes the page again, or nothing.
        disclaimer: what the page is not, after `NOT_FOR_CLINICAL_USE`.
    """
    made_by = f'<p class="muted">Made by</p><code>{escape(command)}</code>' if command else ""
    return (
        f'{made_by}</div></section><p class="muted">{NOT_FOR_CLINICAL_USE}. {escape(disclaimer)}</p>'
        "</main></body></html>\n"
    )


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]], right: int | None = None, wide: bool = True) -> str:
    """An HTML table; cells are escaped here.

    Args:
        head: of the columns; all empty: no head.
        right: the column that holds numbers, to be aligned to the right.
        wide: as wide as the page.
    """

    def cells(tag: str, row: tuple[str, ...]) -> str:
        return "".join(f"<{tag}{' class=n' if i == right else ''}>{escape(cell)}</{tag}>" for i, cell in enumerate(row))

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    top = f"<thead><tr>{cells('th', head)}</tr></thead>" if any(head) else ""
    return f'<div class="scroll"><table{"" if wide else " class=narrow"}>{top}<tbody>{body}</tbody></table></div>'
