"""The command under its earlier name; it lives in `benchmarks.progression.fidelity`."""

import sys

from benchmarks.progression.fidelity import main

if __name__ == "__main__":
    sys.exit(main())
