"""python -m docs.site.build: the documentation site, offline, into build/site/html.

Strict: a link or reference that leads nowhere, a formula that cannot be drawn, a docstring that cannot be parsed or a
notebook that fails stops it with exit 1.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from docs.site.links import ROOT


def main(argv: list[str] | None = None) -> int:
    """Stage the sources and run Sphinx over them; returns Sphinx's exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "site", help="folder (default: build/site)")
    parser.add_argument("--no-notebooks", action="store_true", help="show the notebooks without executing them")
    args = parser.parse_args(argv)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # kernels of the notebooks start elsewhere and find the packages of this checkout
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])

    from sphinx.cmd.build import main as sphinx

    from docs.site.stage import stage

    sources, html = args.out / "source", args.out / "html"
    stage(sources)
    told = ["-D", f"nb_execution_cache_path={(args.out / 'notebooks').resolve()}"]
    told += ["-D", "nb_execution_mode=off"] if args.no_notebooks else []
    strict = ["-b", "html", "-W", "-n", "--keep-going", "-q"]
    return sphinx(
        [*strict, *told, "-c", str(Path(__file__).parent), "-d", str(args.out / "doctrees"), str(sources), str(html)]
    )


if __name__ == "__main__":
    sys.exit(main())
