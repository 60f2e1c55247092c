"""python -m tests.processors: what is promised about equality, under every instruction set torch can use here.

Torch picks its kernels by the processor; `ATEN_CPU_CAPABILITY` picks lesser ones, and `OPENBLAS_CORETYPE` those of
numpy's linear algebra. The tests of the contract and of the oracles run under each, with one thread and with two.
Prints a line for each, and exits with 1 if any run failed. The whole check takes a quarter of an hour on two cores;
`--only`, `--threads` and `--few` choose a part.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys

CAPABILITIES = ("default", "avx2", "avx512")  # least first: a processor that has one has those before it
CORES = {"default": "Nehalem", "avx2": "Haswell", "avx512": "SkylakeX"}  # as numpy's OpenBLAS calls such processors
TESTS = ("tests/contract", "tests/oracles", "tests/test_keys.py")
FEW = (  # rows beside rows, the oracles' recorded values, roots, keys
    *(f"tests/contract/test_{name}.py" for name in ("rounding", "vector_env", "worlds", "ehr_ward", "care_team")),
    *(f"tests/oracles/test_{name}.py" for name in ("roots", "ecg_drug", "ward", "progression", "drawn_as_asked")),
    "tests/test_keys.py",
)


def capabilities() -> tuple[str, ...]:
    """Those of this processor; asking torch for another crashes it."""
    ask = "import torch; print(torch.backends.cpu.get_cpu_capability())"
    clean = {name: value for name, value in os.environ.items() if name != "ATEN_CPU_CAPABILITY"}
    native = subprocess.run([sys.executable, "-c", ask], env=clean, capture_output=True, text=True, check=True)
    name = native.stdout.strip().lower()
    return CAPABILITIES[: CAPABILITIES.index(name) + 1] if name in CAPABILITIES else ("default",)


def run(capability: str, threads: int, tests: tuple[str, ...]) -> tuple[bool, str]:
    """Whether the tests passed, and pytest's closing line."""
    environment = {
        **os.environ,
        "ATEN_CPU_CAPABILITY": capability,
        "OPENBLAS_CORETYPE": CORES[capability],
        "CLINENV_TEST_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",  # threads that wait for work leave the cores to the other process
    }
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", *tests]
    found = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if found.returncode:
        print(found.stdout, flush=True)
    closing = re.findall(r"^.*\b\d+ (?:passed|failed|error).*$", found.stdout, re.MULTILINE)
    return found.returncode == 0, closing[-1].strip("= ") if closing else f"exit {found.returncode}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.processors", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=CAPABILITIES, default=CAPABILITIES, help="where the processor can")
    parser.add_argument("--threads", nargs="+", type=int, choices=(1, 2), default=(1, 2))
    parser.add_argument("--few", action="store_true", help="the tests that most depend on how numbers are rounded")
    args = parser.parse_args()
    passed = True
    for capability in (name for name in capabilities() if name in args.only):
        for threads in args.threads:
            fine, closing = run(capability, threads, FEW if args.few else TESTS)
            print(f"{capability}, threads {threads}: {closing}", flush=True)
            passed &= fine
    sys.exit(not passed)


if __name__ == "__main__":
    main()
