"""The command under its earlier name; it lives in `benchmarks.progression.explain`."""

import sys

from benchmarks.progression.explain import main

if __name__ == "__main__":
    sys.exit(main())
