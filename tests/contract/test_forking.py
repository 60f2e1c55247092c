"""Environments in forked children: what Gymnasium's asynchronous vector environment and SB3's processes do."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# The parent's thread pool has worked before it forks, as it has wherever a network was trained or a world loaded.
_POOL = """
import multiprocessing, sys, torch
torch.set_num_threads(2)
(torch.rand(800, 800) @ torch.rand(800, 800)).exp().sum()
import gymnasium, numpy as np
"""
_ASYNC = """
import clinenv
envs = gymnasium.make_vec("ECGDrug-v0", num_envs=2, vectorization_mode="async", world="ecg-wm-small")
"""
_SUBPROC = """
from stable_baselines3.common.vec_env import SubprocVecEnv
def make():
    import clinenv
    return gymnasium.make("ECGDrug-v0", world="ecg-wm-small")
envs = SubprocVecEnv([make] * 2, start_method="fork")
"""
_STEP = """
envs.reset()
print(len(envs.step(np.full(2, 4))[0]), flush=True)
envs.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_forked_child_does_not_wait_for_its_parents_threads() -> None:
    ways = {"gymnasium async": _ASYNC}
    if importlib.util.find_spec("stable_baselines3") is not None:
        ways["sb3 subproc"] = _SUBPROC
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}
    command = [sys.executable, "-c", _POOL + "".join(making + _STEP for making in ways.values())]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        told, errors = process.communicate(timeout=90)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)  # the children, which wait for ever, with it
        told, _ = process.communicate()
        pytest.fail(f"the forked children hang: of {', '.join(ways)} {len(told.split())} came through")
    assert process.returncode == 0 and told.split() == ["2"] * len(ways), errors
