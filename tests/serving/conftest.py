"""One server of every id, for all tests of this folder; a small one with narrow limits is a test's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("fastapi")

from clinenv.registration import ENVIRONMENTS  # noqa: E402
from clinenv.serving.course import Served  # noqa: E402
from clinenv.serving.limits import Limits  # noqa: E402
from clinenv.serving.server import running  # noqa: E402
from tests.clinenv.test_ehr_replay import stay  # noqa: E402
from tests.serving.asking import Asking  # noqa: E402

ARGUMENTS = {"EHRReplay-v0": {"stays": [stay(1), stay(2, age=50.0)]}}


@pytest.fixture(scope="session")
def served() -> dict[str, Served]:
    return {row["id"]: Served(row["id"], ARGUMENTS.get(row["id"], {})) for row in ENVIRONMENTS}


@pytest.fixture(scope="session")
def asking(served) -> Iterator[Asking]:
    with running(list(served.values()), Limits(step_timeout_s=120.0, request_s=60.0)) as url:
        yield Asking(url)
