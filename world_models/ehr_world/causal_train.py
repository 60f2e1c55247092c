"""The command under its earlier name; it lives in `world_models.ehr_world.causal_lm.train`."""

from world_models.ehr_world.causal_lm.train import main

if __name__ == "__main__":
    raise SystemExit(main())
