"""The command under its earlier name; it lives in `benchmarks.progression.actions`."""

import sys

from benchmarks.progression.actions import main

if __name__ == "__main__":
    sys.exit(main())
