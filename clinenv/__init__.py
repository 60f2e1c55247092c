"""Clinical environments for Gymnasium over learned and mechanistic patients. Importing registers the ids, no more.

`import clinenv; gymnasium.make("ECGDrug-v0")`. Nothing heavy is imported before the first `make`.
"""

from __future__ import annotations

from clinenv import registration

__all__ = ["__version__"]

__version__ = "0.1.0"

registration.register()
