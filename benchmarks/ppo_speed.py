"""The name by which documents know `benchmarks.ecg_drug.ppo_speed`."""

from benchmarks.ecg_drug.ppo_speed import main

if __name__ == "__main__":
    raise SystemExit(main())
