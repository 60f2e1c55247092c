"""The peers: what else steps patients or learned worlds, measured on this machine, each in a virtual environment of its
own, with random legal actions, resets included.

| peer | what it is |
|---|---|
| icu-sepsis | a table of 716 states fitted to MIMIC-III (arXiv 2406.05646) |
| epicare | treatment courses by hidden Markov models (NeurIPS 2024 datasets and benchmarks) |
| simglucose | the UVa/Padova simulator of type 1 diabetes, three minutes a step |
| sepsisim | sepsis by differential equations, an hour a step |
| dtr-bench | DTRGym's chemotherapy, tumour and sepsis (Oberst and Sontag's) environments (arXiv 2405.18610) |
| mbrl-lib | the usual ensemble of five probabilistic MLPs as a learned vector environment (arXiv 2104.10159) |
| gymnax | CartPole in JAX: hardly any world, so the ceiling of an interface |

Older packages pin what does not install beside today's Python: they get the versions of their day that do, and where
they need torch they borrow this project's.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["PEERS", "Peer", "measure_peer"]

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path.home() / ".cache" / "clinenv-peers"
SCRIPTS = "benchmarks.common.peer_scripts"
# what comes after the peer's own packages: borrowed ones, and these scripts
RUN = "import runpy, sys; more = int(sys.argv[1]); sys.path += sys.argv[2 : 2 + more]; del sys.argv[1 : 2 + more];" + (
    "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)
ONE_THREAD = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"),
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}
INSTALL_S, MEASURE_S = 900.0, 600.0  # until which it is waited


@dataclass(frozen=True)
class Peer:
    """How a peer is installed and measured.

    Args:
        installs: arguments of pip install, one call each; none: it is not to be had, for the reason `absent`.
        script: of `peer_scripts`, with arguments beyond seconds, repeats and threads.
        borrow: append this project's packages behind its own.
    """

    installs: tuple[tuple[str, ...], ...] = ()
    script: str = ""
    arguments: tuple[str, ...] = ()
    borrow: bool = False
    absent: str = ""


def _ids(module: str, **made: dict[str, Any]) -> dict[str, Any]:
    """A peer of Gymnasium ids: what each is called, and how it is made."""
    named = {name.replace("_", " "): arguments for name, arguments in made.items()}
    return {"script": "gymnasium_ids", "arguments": (module, json.dumps(named))}


_GLUCOSE = {
    "id": "simglucose/adolescent2-v0",
    "entry_point": "simglucose.envs:T1DSimGymnaisumEnv",  # so spelt
    "max_episode_steps": 480,  # a day
    "kwargs": {"patient_name": "adolescent#002"},
}

PEERS: dict[str, Peer] = {
    "icu-sepsis": Peer((("icu-sepsis==2.0.1",),), **_ids("icu_sepsis", one_patient={"id": "Sepsis/ICU-Sepsis-v2"})),
    "epicare": Peer(absent="no package registry has it: its authors give out a repository alone"),
    "simglucose": Peer(
        (
            ("setuptools<66", "wheel"),  # with which Gym of 2017 builds
            ("--no-deps", "--no-build-isolation", "simglucose==0.2.11", "gym==0.9.4"),
            ("gymnasium==0.29.1", "numpy<2", "pandas==2.2.3", "scipy==1.13.1", "matplotlib", "pathos"),
            ("requests", "six", "pyglet<2"),  # which Gym of 2017 asks for
        ),
        **_ids("simglucose", one_patient=_GLUCOSE),
    ),
    "sepsisim": Peer((("sepsisim==0.1.0",),), **_ids("sepsisim", one_patient={"id": "sepsisim/SepsisManagement-v0"})),
    "dtr-bench": Peer(
        (
            ("--no-deps", "--ignore-requires-python", "dtrgym==0.1.0", "simglucose==0.2.3", "tianshou==0.5.0"),
            ("gymnasium==0.29.1", "numpy<2", "pandas==2.2.3", "scipy==1.13.1", "matplotlib", "tqdm", "packaging"),
            ("gym==0.26.2", "numba", "h5py", "tensorboard", "setuptools<81"),
        ),
        **_ids(
            "DTRGym",
            sepsis={"id": "OberstSepsisEnv-discrete"},
            chemotherapy={"id": "AhnChemoEnv-discrete", "n_act": 11},
            tumour={"id": "GhaffariCancerEnv-continuous"},
        ),
        borrow=True,
    ),
    "mbrl-lib": Peer(
        (("--no-deps", "mbrl==0.2.0"), ("gym==0.26.2", "numpy<2", "hydra-core", "imageio", "termcolor", "matplotlib")),
        "mbrl_ensemble",
        borrow=True,
    ),
    "gymnax": Peer((("gymnax==1.0.1", "jax[cpu]", "six"),), "gymnax_cartpole"),
}


def measure_peer(name: str, folder: Path, seconds: float, repeats: int, threads: int = 1) -> dict[str, Any]:
    """Install the peer under `folder` if it is not there yet and measure it.

    Returns:
        {"rates": {what: as of `timing.rate`}}, or {"error": why it could not be measured}; a peer that does not install
        is a finding, not a failure of the benchmark.
    """
    peer = PEERS[name]
    if not peer.installs:
        return {"error": f"not measured: {peer.absent}"}
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | (ONE_THREAD if threads == 1 else {})
    try:
        python = _installed(peer, folder / name, environment)
        more = [sysconfig.get_paths()["purelib"]] * peer.borrow + [str(ROOT)]
        told = [f"{SCRIPTS}.{peer.script}", seconds, repeats, threads, *peer.arguments]
        printed = _run([python, "-W", "ignore", "-c", RUN, len(more), *more, *told], environment, MEASURE_S)
        return {"rates": json.loads(printed.strip().splitlines()[-1]), "threads": threads}
    except (subprocess.SubprocessError, OSError, ValueError, IndexError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        return {"error": f"not measured: {said[-1][:200] if said else type(error).__name__}"}


def _installed(peer: Peer, home: Path, environment: dict[str, str]) -> Path:
    """The Python of the peer's virtual environment, which is made if it is not there or holds something else."""
    python = home / ("Scripts" if os.name == "nt" else "bin") / "python"
    done, wanted = home / "installed", json.dumps(peer.installs)
    if not done.exists() or done.read_text(encoding="utf-8") != wanted:
        venv.create(home, with_pip=True, clear=True)
        for arguments in peer.installs:
            _run([python, "-m", "pip", "install", "--quiet", *arguments], environment, INSTALL_S)
        done.write_text(wanted, encoding="utf-8")
    return python


def _run(command: Sequence[Any], environment: dict[str, str], timeout_s: float) -> str:
    command = [str(part) for part in command]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout_s, check=True)
    return run.stdout


def main() -> int:
    """Measure the named peers, or every one, and print what was found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.common.peers", description=__doc__.splitlines()[0])
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    for name in arguments.peers:
        found = measure_peer(name, arguments.folder, arguments.seconds, 3)
        print(name, json.dumps(found), file=sys.stdout, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
