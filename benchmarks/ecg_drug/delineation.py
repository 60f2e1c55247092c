"""How well, and how fast, ECG intervals are measured: against synthetic truth, LUDB's manual marks, and neurokit2.

    python -m benchmarks.ecg_drug.delineation [--ludb DIR] [--out DIR] [--threads N] [--quick]

Writes delineation_oracle.csv, delineation_ludb.csv and delineation_speed.csv. neurokit2 (a development extra) and the
LUDB folder may be absent: their rows are then left out, with a line that says so.

LUDB: a record's reference is, per interval, (a) the median over beats of the manual marks of lead II, (b) the median
over the twelve leads of the leads' own medians. Both are shown; (b) is the headline, since the delineator gives one
value a record from all leads. All methods meet the same references. The thresholds of the "reader" convention in
`world_models.ecg.delineation.delineate` were chosen on the odd records, and the even ones are the test half; only the
limits for whether a P wave is there at all were set with the fibrillation records of both halves in view. A failure is
no value, or an error above 20 ms (PR, QRS) or 40 ms (QT); the shares above other limits stand beside it, and the 95 %
interval of the failure share (Wilson 1927, doi 10.1080/01621459.1927.10502953): with 80 records one failure is 1.25 %.
"delineate, reader, II" is given lead II alone, as neurokit2 is.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from pathlib import Path

import numpy as np
import torch

from benchmarks.common.intervals import numpy_median_interval, wilson
from benchmarks.common.results import HEIGHTS, RESULTS, made_by, write_csv
from world_models import keys
from world_models.ecg.delineation.delineate import CONVENTIONS, delineate
from world_models.ecg.intervals import QT_EXPONENT
from world_models.ecg.lead_names import LEADS
from world_models.ecg.morphology import MorphologyBank
from world_models.ecg.waveform import Intervals, synthesise_ecg

INTERVALS = ("pr_ms", "qrs_ms", "qt_ms")
FAILURE_MS = {"pr_ms": 20.0, "qrs_ms": 20.0, "qt_ms": 40.0}
DATA = Path(os.environ.get("CLINENV_DATA", Path(__file__).resolve().parents[2] / "../shared/data"))
TRUTH_SEED, SPEED_SEED = 2024, 5
TRUTH = ("heart_rate_bpm", "pr_ms", "qrs_ms", "qt_ms", "jt_peak_ms", "tpeak_tend_ms")


def synthetic_ecgs(count: int, seed: int, noise_uv: float, fs: float = 500.0, low: float = 45.0, high: float = 130.0):
    """Recordings [count, 12, 10 s] and their Intervals; PR is cut so that P starts after the last T has ended."""
    key = keys.from_seed(seed, count)

    def between(name: str, a: float, b: float) -> torch.Tensor:
        return a + (b - a) * keys.uniform(key, 0, name)

    rate = between("rate", low, high)
    rr = 60000.0 / rate
    qrs, tail = between("qrs", 75.0, 140.0), between("tail", 60.0, 130.0)
    qt = between("qtcf", 370.0, 500.0) * (rr / 1000.0) ** QT_EXPONENT
    jt = (qt - qrs - tail).clamp_min(90.0)
    pr = torch.minimum(between("pr", 110.0, 240.0), (rr - (qrs + jt + tail)).clamp_min(100.0))
    intervals = Intervals.of(rate, pr, qrs, jt, tail)
    morphology = MorphologyBank.load().sample(keys.fold(key, "morphology"))
    ecg = synthesise_ecg(key, 0, intervals, morphology, sampling_rate_hz=fs, noise_uv=noise_uv, wander_uv=50.0)
    return ecg, intervals


def read_ludb(folder: Path, halves: tuple[int, ...] = (0, 1)) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of the records whose number modulo 2 is in `halves`: the numbers [N], the ECGs [N, 12, 5000] mV, and the
    references of lead II and of all leads, each [N, 3] ms."""
    import wfdb

    folder = folder / "data" if (folder / "data").is_dir() else folder
    numbers = np.array(sorted(int(p.stem) for p in folder.glob("*.hea") if int(p.stem) % 2 in halves))
    ecg, leads = [], np.full((len(numbers), 12, 3), np.nan)
    for row, number in enumerate(numbers):
        record = wfdb.rdrecord(str(folder / str(number)))
        ecg.append(record.p_signal.T)
        for column, lead in enumerate(name.lower() for name in LEADS):
            leads[row, column] = _manual(wfdb.rdann(str(folder / str(number)), lead), record.fs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return numbers, np.stack(ecg), leads[:, 1], np.nanmedian(leads, axis=1)


def _manual(marks, fs: float) -> list[float]:
    """Median PR, QRS and QT in ms of one lead's marks: each wave is '(', its peak (p, N, t), ')'."""
    symbol, sample = marks.symbol, marks.sample
    waves = [
        (
            symbol[i],
            sample[i - 1] if i and symbol[i - 1] == "(" else None,
            sample[i + 1] if i + 1 < len(symbol) and symbol[i + 1] == ")" else None,
        )
        for i in range(len(symbol))
        if symbol[i] in "pNt"
    ]
    pr, qrs, qt = [], [], []
    for i, (kind, start, stop) in enumerate(waves):
        if kind != "N" or start is None:
            continue
        if stop is not None:
            qrs.append(stop - start)
        if i and waves[i - 1][0] == "p" and waves[i - 1][1] is not None:
            pr.append(start - waves[i - 1][1])
        if i + 1 < len(waves) and waves[i + 1][0] == "t" and waves[i + 1][2] is not None:
            qt.append(waves[i + 1][2] - start)
    return [float(np.median(v)) * 1000.0 / fs if v else np.nan for v in (pr, qrs, qt)]


def neurokit(lead: np.ndarray, fs: float, method: str) -> list[float]:
    """PR, QRS, QT, J-Tpeak, Tpeak-Tend (ms) and heart rate of one lead by neurokit2; NaN if it raises."""
    import neurokit2 as nk

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            clean = nk.ecg_clean(lead, sampling_rate=int(fs))
            peaks = nk.ecg_peaks(clean, sampling_rate=int(fs))[1]["ECG_R_Peaks"]
            waves = nk.ecg_delineate(clean, peaks, sampling_rate=int(fs), method=method)[1]
            p, q, s, peak, t = (
                np.asarray(waves.get(f"ECG_{name}", np.full(len(peaks), np.nan)), dtype=float)
                for name in ("P_Onsets", "R_Onsets", "R_Offsets", "T_Peaks", "T_Offsets")
            )
            values = [np.nanmedian(v) * 1000.0 / fs for v in (q - p, s - q, t - q, peak - s, t - peak)]
            return [*values, 60.0 * fs / float(np.median(np.diff(peaks)))]
        except Exception:  # it raises many kinds on hard records; that is a result: no value
            return [np.nan] * 6


def write(path: Path, rows: list[dict], made: dict) -> None:
    """The table to a CSV, and printed in columns."""
    write_csv(path, rows, made)
    print(f"\n{path}")
    widths = {k: max(len(k), *(len(str(r[k])) for r in rows)) for k in rows[0]}
    for row in [{k: k for k in rows[0]}, *rows]:
        print("  ".join(str(row[k]).ljust(widths[k]) for k in rows[0]))


def _has_neurokit() -> bool:
    try:
        import neurokit2  # noqa: F401
    except ImportError:
        print("neurokit2 is not installed (it is a development extra): its rows are left out")
        return False
    return True


def oracle(count: int, rival: bool) -> list[dict]:
    """Errors on synthetic ECGs, `count` for each noise and sampling rate: rows of delineation_oracle.csv."""
    rows = []

    def add(method: str, noise: float, fs: float, name: str, value: np.ndarray, truth: np.ndarray) -> None:
        error = value - truth
        ok = np.isfinite(error)
        e = error[ok]
        rows.append(
            {
                "method": method,
                "noise_uv": noise,
                "rate_hz": fs,
                "interval": name,
                "ecgs": len(error),
                "no_value": int((~ok).sum()),
                "mean_error": round(float(e.mean()), 2),
                "sd": round(float(e.std()), 2),
                "mean_absolute_error": round(float(np.abs(e).mean()), 2),
                "p95_absolute_error": round(float(np.percentile(np.abs(e), 95)), 1),
            }
        )

    for noise, fs in ((15.0, 500.0), (40.0, 500.0), (15.0, 250.0)):
        ecg, truth = synthetic_ecgs(count, TRUTH_SEED, noise, fs)
        found = delineate(ecg, fs)
        for name in TRUTH:
            add("delineate", noise, fs, name, getattr(found, name).numpy(), getattr(truth, name).numpy())
        if rival and (noise, fs) == (15.0, 500.0):
            few = min(count, 256)
            values = np.array([neurokit(x, fs, "prominence") for x in ecg[:few, 1].double().numpy()])
            for column, name in enumerate((*TRUTH[1:], TRUTH[0])):
                add("neurokit2 prominence, II", noise, fs, name, values[:, column], getattr(truth, name)[:few].numpy())
    return rows


def ludb(folder: Path, rival: bool, quick: bool) -> list[dict]:
    """Errors against manual marks: rows of delineation_ludb.csv.

    Args:
        rival: neurokit2 is there to be compared with.
        quick: leave out its slow method.
    """
    numbers, ecg, lead_ii, all_leads = read_ludb(folder)
    signal = torch.tensor(ecg, dtype=torch.float32)
    methods = {}
    for convention in CONVENTIONS:
        found = delineate(signal, 500.0, convention)
        methods[f"delineate, {convention}"] = np.stack([getattr(found, n).numpy() for n in INTERVALS], 1)
    alone = torch.zeros_like(signal)
    alone[:, 1] = signal[:, 1]
    found = delineate(alone, 500.0, "reader")
    methods["delineate, reader, II"] = np.stack([getattr(found, n).numpy() for n in INTERVALS], 1)
    if rival:
        for method in ("prominence", "dwt"):
            if method == "dwt" and quick:
                continue
            methods[f"neurokit2 {method}, II"] = np.array([neurokit(x[1], 500.0, method)[:3] for x in ecg])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            each = np.array([[neurokit(lead, 500.0, "prominence")[:3] for lead in x] for x in ecg])
            methods["neurokit2 prominence, median of 12"] = np.nanmedian(each, axis=1)
    rows = []
    for reference, marks in (("median of leads", all_leads), ("lead II", lead_ii)):
        for half, chosen in (("odd (tuning)", numbers % 2 == 1), ("even (test)", numbers % 2 == 0)):
            for column, name in enumerate(INTERVALS):
                known = chosen & np.isfinite(marks[:, column])
                for method, values in methods.items():
                    error = np.abs(values[known, column] - marks[known, column])
                    missed = np.where(np.isfinite(error), error, np.inf)
                    low, high = numpy_median_interval(missed)
                    failures = int((missed > FAILURE_MS[name]).sum())
                    fail_low, fail_high = wilson(failures, len(missed))
                    share = {f"over_{limit}_ms": round(float((missed > limit).mean()), 3) for limit in (20, 30, 40, 60)}
                    signed = values[known, column] - marks[known, column]
                    rows.append(
                        {
                            "reference": reference,
                            "half": half,
                            "interval": name,
                            "method": method,
                            "records": int(known.sum()),
                            "median_absolute_error_ms": round(float(np.median(missed)), 1),
                            "ci_low": round(low, 1),
                            "ci_high": round(high, 1),
                            "median_error_ms": round(float(np.nanmedian(signed)), 1),
                            "failures": failures,
                            "failure_share": round(failures / len(missed), 3),
                            "failure_ci_low": round(fail_low, 3),
                            "failure_ci_high": round(fail_high, 3),
                            "no_value": int((~np.isfinite(error)).sum()),
                            **share,
                        }
                    )
    return rows


def speed(rival: bool, threads: int) -> list[dict]:
    """ECGs per second of processor time (so that other users of the machine do not count), the best of five runs."""
    ecg, _ = synthetic_ecgs(256, SPEED_SEED, 15.0)
    rows = []

    def add(method: str, batch: int, rate: float) -> None:
        rows.append({"method": method, "threads": threads, "batch": batch, "ecgs_per_cpu_s": round(rate, 1)})

    delineate(ecg[:32], 500.0)
    for batch in (1, 16, 64, 256):
        runs = []
        for _ in range(5):
            start = time.process_time()
            delineate(ecg[:batch], 500.0)
            runs.append(time.process_time() - start)
        add("delineate, 12 leads", batch, batch / min(runs))
    if rival:
        lead = ecg[:32, 1].double().numpy()
        runs = []
        for _ in range(5):
            start = time.process_time()
            for x in lead:
                neurokit(x, 500.0, "prominence")
            runs.append(time.process_time() - start)
        add("neurokit2 prominence, 1 lead", 1, 32 / min(runs))
    return rows


def main(argv: list[str] | None = None) -> None:
    """The three tables; LUDB's where its folder is."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--ludb", type=Path, default=DATA / "ludb", help="folder of LUDB 1.0.1 (WFDB)")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--threads", type=int, default=1, help="torch threads (neurokit2 uses one)")
    parser.add_argument("--quick", action="store_true", help="fewer synthetic ECGs, no neurokit2 'dwt'")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    rival = _has_neurokit()
    seeds = {"synthetic ECGs": TRUTH_SEED, "ECGs timed": SPEED_SEED}
    made = made_by("benchmarks.ecg_drug.delineation", argv, seeds, files=[HEIGHTS])
    write(options.out / "delineation_speed.csv", speed(rival, options.threads), made)
    write(options.out / "delineation_oracle.csv", oracle(128 if options.quick else 1024, rival), made)
    if options.ludb.is_dir():
        write(options.out / "delineation_ludb.csv", ludb(options.ludb, rival, options.quick), made)
    else:
        print(f"no LUDB at {options.ludb}: give its folder with --ludb; that comparison is left out")


if __name__ == "__main__":
    main()
