"""The command under its earlier name; it lives in `benchmarks.common.step_path`."""

import sys

from benchmarks.common.step_path import main

if __name__ == "__main__":
    sys.exit(main())
