"""The command under its earlier name; it lives in `benchmarks.common.speed`."""

import sys

from benchmarks.common.speed import main

if __name__ == "__main__":
    sys.exit(main())
