"""The command under its earlier name; it lives in `benchmarks.ward.tables`."""

import sys

from benchmarks.ward.tables import main

if __name__ == "__main__":
    sys.exit(main())
