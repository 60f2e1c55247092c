"""The command under its earlier name; it lives in `benchmarks.common.trajectories`."""

import sys

from benchmarks.common.trajectories import main

if __name__ == "__main__":
    sys.exit(main())
