"""The table of inputs that are damaged: how a whole one is written, what may be done to it, and who reads it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

# what readers load when they are first called, so that no trial waits for it in each new child
import scipy.signal  # noqa: F401
import torch._dynamo  # noqa: F401

from agents import run_folder
from agents.board.submission import read_submission
from tests.campaign import ecg_inputs as ecg
from tests.campaign import small
from tests.campaign import stay_inputs as stay
from tests.campaign import world_inputs as world
from tests.campaign.damages import Damage, any_of, bytes_of, json_of, link_of, weights_of
from world_models import catalog, checkpoint
from world_models.data.ehr.load import load_episodes

__all__ = ["KINDS", "Kind"]


@dataclass(frozen=True)
class Kind:
    """One kind of input."""

    name: str
    share: int  # of the trials
    write: Callable[[Path], Any]  # a whole input into an empty folder
    damage: Damage
    read: Callable[[Path], Any]
    a_child: int = 200  # trials a process


KINDS = (
    Kind("WFDB", 20, ecg.write_records, any_of(
        (16, partial(bytes_of, text=ecg.HEADERS, binary=("rec.dat", "f212.dat", "f24.dat"))),
        (2, ecg.names_out), (2, partial(link_of, names=("rec.dat", "f24.dat", "f212.dat")))), ecg.read_records),
    Kind("tables of labels", 3, ecg.write_labelled, any_of(
        (8, partial(bytes_of, text=("labels.csv",))), (1, partial(ecg.record_out, name="labels.csv", record="a")),
        ), ecg.read_labels),
    Kind("PTB-XL's table", 4, ecg.write_labelled, any_of(
        (8, partial(bytes_of, text=(ecg.PTBXL,))),
        (1, partial(ecg.record_out, name=ecg.PTBXL, record="records500"))), ecg.read_ptbxl),
    Kind("a trial's table", 4, ecg.write_labelled, partial(bytes_of, text=(ecg.TRIAL,)), ecg.read_trial),
    Kind("a machine's table", 4, ecg.write_labelled, partial(bytes_of, text=("Diagnostics.csv",)), ecg.read_machine),
    Kind("MIMIC tables", 1, stay.write_tables, any_of(
        (20, partial(bytes_of, text=stay.TABLE_TEXT, binary=stay.TABLE_BINARY)), (20, stay.table_cells),
        (1, stay.gzip_bomb)),
        lambda folder: load_episodes(tables=folder), 50),
    Kind("MEDS", 9, partial(stay.write_meds, style="new"), any_of(
        (60, partial(bytes_of, binary=("m.parquet",))), (60, stay.meds_cells), (1, stay.parquet_bomb)),
        lambda folder: load_episodes(meds=folder), 100),
    Kind("stays and contexts", 12, stay.write_own_stays, any_of(
        (2, stay.own_cells), (1, partial(bytes_of, binary=("m.parquet",))),
        (2, stay.contexts)), stay.read_own_stays, 100),
    Kind("configurations", 12, partial(world.write_world, name="ehr-ward-small"), world.sealed_anew(
        partial(json_of, name=checkpoint.CONFIG), checkpoint._FORM), catalog.load, 100),
    Kind("weights", 8, partial(world.write_world, name="ehr-ward-small"), world.sealed_anew(
        partial(weights_of, name=checkpoint.WEIGHTS), checkpoint._FORM), catalog.load, 100),
    Kind("policies", 8, world.write_policy, world.sealed_anew(any_of(
        (1, partial(json_of, name=run_folder.POLICY.json)), (1, partial(weights_of, name=run_folder.TENSORS))),
        run_folder.POLICY), world.read_policy, 100),
    Kind("submissions", 8, small.write_submission, world.submission_damage,
         lambda folder: read_submission(folder / "mine.json"), 100),
    Kind("snapshots", 14, world.write_snapshots, world.snapshot_damage, world.read_snapshots, 100),
    Kind("HDF5", 8, world.write_hdf5, any_of(
        (8, partial(bytes_of, binary=("m.h5", "log.h5"))), (1, world.hdf5_bomb)), world.read_hdf5, 100),
)  # fmt: skip
