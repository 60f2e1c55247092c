"""Clinical environments for Gymnasium over learned and mechanistic patients. Importing registers the ids, and sees to
it that forked children can use torch (`clinenv.forking`), no more.

`import clinenv; gymnasium.make("ECGDrug-v0")`. Nothing heavy is imported before the first `make`.
"""

from __future__ import annotations

from clinenv import forking, registration

__all__ = ["__version__"]

__version__ = "0.1.0"

registration.register()
forking.guard_forks()
