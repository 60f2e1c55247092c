"""The command under its earlier name; it lives in `benchmarks.progression.ecg_picture`."""

import sys

from benchmarks.progression.ecg_picture import main

if __name__ == "__main__":
    sys.exit(main())
