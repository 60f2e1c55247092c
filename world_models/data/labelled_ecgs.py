"""The command under its earlier name; it lives in `world_models.data.ecg.labelled`."""

from world_models.data.ecg.labelled import main

if __name__ == "__main__":
    raise SystemExit(main())
