"""Small batches on busy machines: one thread is up to fifty times faster than two that wait for each other."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import settings

settings.register_profile("seeded", derandomize=True)  # the same examples each time, as all else here is seeded
settings.load_profile("seeded")


@pytest.fixture(autouse=True)
def few_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(int(os.environ.get("CLINENV_TEST_THREADS", "1")))
    yield
    torch.set_num_threads(threads)
