"""The command under its earlier name; it lives in `world_models.oracles.ecg_drug.fit.trial`."""

from world_models.oracles.ecg_drug.fit.trial import main

if __name__ == "__main__":
    raise SystemExit(main())
