"""Small batches on busy machines: one thread is up to fifty times faster than two that wait for each other."""

from __future__ import annotations

import gc
import os

# Threads that wait for work leave the cores to pytest's other workers, and commands that tests start have one as the
# tests do. Both are read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", os.environ.get("CLINENV_TEST_THREADS", "1"))

import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import settings  # noqa: E402

settings.register_profile("seeded", derandomize=True)  # the same examples each time, as all else here is seeded
settings.load_profile("seeded")


def pytest_collection_finish() -> None:
    """The modules that are loaded by now stay: the collector need not go through them again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def few_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(int(os.environ.get("CLINENV_TEST_THREADS", "1")))
    yield
    torch.set_num_threads(threads)
