"""The command under its earlier name; it lives in `world_models.data.ehr.pipeline`."""

from world_models.data.ehr.pipeline import main

if __name__ == "__main__":
    raise SystemExit(main())
