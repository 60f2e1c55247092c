"""The command under its earlier name; it lives in `world_models.data.ecg.labelled`."""

import sys

from world_models.data.ecg.labelled import main

if __name__ == "__main__":
    sys.exit(main())
