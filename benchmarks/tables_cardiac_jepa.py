"""The command under its earlier name; it lives in `benchmarks.progression.tables`."""

import sys

from benchmarks.progression.tables import main

if __name__ == "__main__":
    sys.exit(main())
