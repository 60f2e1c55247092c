"""The command under its short name; it lives in `benchmarks.ecg_drug.probes`."""

import sys

from benchmarks.ecg_drug.probes import main

if __name__ == "__main__":
    sys.exit(main())
