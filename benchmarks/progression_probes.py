"""The command under its earlier name; it lives in `benchmarks.progression.probes`."""

import sys

from benchmarks.progression.probes import main

if __name__ == "__main__":
    sys.exit(main())
