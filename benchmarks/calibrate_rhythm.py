"""The command under its earlier name; it lives in `benchmarks.ecg_drug.calibrate_rhythm`."""

import sys

from benchmarks.ecg_drug.calibrate_rhythm import main

if __name__ == "__main__":
    sys.exit(main())
