"""The command under its earlier name; it lives in `world_models.data.ecg.mimic_iv_ecg`."""

from world_models.data.ecg.mimic_iv_ecg import main

if __name__ == "__main__":
    raise SystemExit(main())
