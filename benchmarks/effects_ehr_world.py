"""The command under its earlier name; it lives in `benchmarks.ward.effects`."""

import sys

from benchmarks.ward.effects import main

if __name__ == "__main__":
    sys.exit(main())
