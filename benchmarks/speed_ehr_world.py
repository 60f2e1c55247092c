"""The command under its earlier name; it lives in `benchmarks.ward.speed`."""

import sys

from benchmarks.ward.speed import main

if __name__ == "__main__":
    sys.exit(main())
