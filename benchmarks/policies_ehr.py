"""The command under its earlier name; it lives in `benchmarks.ward.policies`."""

import sys

from benchmarks.ward.policies import main

if __name__ == "__main__":
    sys.exit(main())
