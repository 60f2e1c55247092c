"""What wheel and sdist hold: the three packages and no tests, benchmarks or results; prints the sizes.

python .ci/packed.py dist
"""

from __future__ import annotations

import sys
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

ALLOWED = {"clinenv", "world_models", "agents"}
BESIDE = {"PKG-INFO", "README.md", "LICENSE", "pyproject.toml", "CITATION.cff", "constraints.txt", ".gitignore"}
NEEDED = (
    "clinenv/py.typed",
    "clinenv/constraints.txt",
    "clinenv/serving/openenv.yaml",
    "agents/board/page.css",
    "world_models/weights/ecg-wm-small/model.safetensors",
)
MOST_BYTES = 40_000_000  # the weights make 28 MB


def main(folder: Path) -> int:
    """0 where both are as they should be; what is wrong goes to standard error."""
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as file:
        in_wheel = file.namelist()
    with tarfile.open(sdist) as file:
        in_sdist = [name.partition("/")[2] for name in file.getnames()]
    info = wheel.name.split("-")[0] + "-" + wheel.name.split("-")[1] + ".dist-info"
    wrong = [name for name in in_wheel if name.split("/")[0] not in ALLOWED | {info}]
    wrong += [name for name in in_sdist if name.split("/")[0] not in ALLOWED | BESIDE]
    wrong += [f"{name} is not in the wheel" for name in NEEDED if name not in in_wheel]
    for path, names in ((wheel, in_wheel), (sdist, in_sdist)):
        size = path.stat().st_size
        counts = Counter(name.split("/")[0] for name in names)
        print(f"{path.name}: {size / 1e6:.1f} MB, " + ", ".join(f"{counts[top]} {top}" for top in sorted(ALLOWED)))
        wrong += [f"{path.name} has {size} bytes, over {MOST_BYTES}"] if size > MOST_BYTES else []
    for name in wrong[:20]:
        print(f"does not belong, or is missing: {name}", file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
