"""The command under its earlier name; it lives in `benchmarks.ecg_drug.trial`."""

import sys

from benchmarks.ecg_drug.trial import main

if __name__ == "__main__":
    sys.exit(main())
