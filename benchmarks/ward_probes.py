"""The command under its earlier name; it lives in `benchmarks.ward.probes`."""

import sys

from benchmarks.ward.probes import main

if __name__ == "__main__":
    sys.exit(main())
