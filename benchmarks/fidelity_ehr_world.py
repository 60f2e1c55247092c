"""The command under its earlier name; it lives in `benchmarks.ward.fidelity`."""

import sys

from benchmarks.ward.fidelity import main

if __name__ == "__main__":
    sys.exit(main())
