"""The command under its earlier name; it lives in `benchmarks.progression.policies`."""

import sys

from benchmarks.progression.policies import main

if __name__ == "__main__":
    sys.exit(main())
