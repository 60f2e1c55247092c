"""The command under its earlier name; it lives in `benchmarks.progression.ceiling`."""

import sys

from benchmarks.progression.ceiling import main

if __name__ == "__main__":
    sys.exit(main())
