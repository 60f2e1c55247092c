"""The command under its earlier name; it lives in `benchmarks.progression.speed`."""

import sys

from benchmarks.progression.speed import main

if __name__ == "__main__":
    sys.exit(main())
