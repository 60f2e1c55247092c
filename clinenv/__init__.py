"""Clinical environments for Gymnasium over learned and mechanistic patients. Importing registers the ids, and sees to
it that forked children can use torch (`clinenv.forking`) and that `agents` and `world_models` are ours (`clashes`),
no more.

`import clinenv; gymnasium.make("ECGDrug-v0")`, or `clinenv.make_team("CareTeam-v0")` for several agents. Nothing heavy
is imported before the first of them.
"""

from __future__ import annotations

from clinenv import clashes

clashes.check()  # before anything of ours is imported by a name that others use, too

from clinenv import ecg, forking, registration  # noqa: E402
from clinenv.registration import make_team  # noqa: E402

__all__ = ["__version__", "ecg", "make_team"]

__version__ = "0.1.0"

registration.register()
forking.guard_forks()
