"""The command under its earlier name; it lives in `benchmarks.progression.fair_arms`."""

import sys

from benchmarks.progression.fair_arms import main

if __name__ == "__main__":
    sys.exit(main())
