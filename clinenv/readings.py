"""How a chart is read: with a reader's error, and from records that are not always made.

Errors and missing records exist here only. Reward, cost and the end are judged on the true chart: a policy is paid for
what happens to the patient, not for what the ECG machine printed.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor

from clinenv.layout import age_label
from clinenv.task import Task
from clinenv.view import View
from world_models import keys
from world_models.protocol import Chart, WorldModel

__all__ = ["MISSINGNESS", "NOISE", "Readings"]

NOISE = {"none": 0.0, "clinic": 1.0, "ward": 2.0}  # multiples of a column's noise_sd: a careful, a hurried reading
MISSINGNESS = ("none", "some", "much")


class Readings:
    """The rows that are read for a view, at one level of noise and of missing records; holds no patient.

    A record that was not made shows its last values, as a chart at the bedside does, and `hours_since_<record>` says
    how old they are (0: made now; the admission record is always made). A measure that is missing in a record that was
    made (`Quantity.may_be_missing`: PR in fibrillation) also shows the last one that was read, at admission the
    layout's centre; another column says that there is none (`atrial_fibrillation`). So every row lies in its Box, its
    layout is the same at all levels, and a policy trained at one can be tried at another.
    """

    def __init__(self, world: WorldModel, task: Task, view: View, noise: str, missingness: str) -> None:
        device, layout, columns = torch.device(world.device), view.layout, view.columns
        measured = {quantity.name: quantity for quantity in world.measures}
        self._reread, self._read_at = task.reread, task.read_at
        self._records = len(task.records)
        # neighbouring measures of one number a patient are stacked together; others stand alone
        scalars = itertools.groupby(columns, key=lambda c: measured[c.name].shape == () or c.name)
        self._runs = [(kind is True, [column.name for column in run]) for kind, run in scalars]
        # where a measure that is missing now may leave a gap
        self._gaps = any(measured[column.name].may_be_missing for column in columns)
        self._centre = torch.as_tensor(layout.centre, device=device)
        self._low = torch.as_tensor(layout.low, device=device)
        self._high = torch.as_tensor(layout.high, device=device)
        sd = NOISE[noise]
        self._noisy = [
            (c.name, c.noise_sd * sd, measured[c.name].low, measured[c.name].high)
            for c in columns
            if c.noise_sd > 0 and sd > 0
        ]
        # which entries of the row go missing with which record, and how a step ages it
        holder: list[str] = []
        for column in columns:
            holder += [column.record] * int(np.prod(measured[column.name].shape, dtype=int))
        holder += [record.name for record in task.records]
        ageing = np.eye(len(layout), dtype=np.float32) * np.float32(world.hours_per_step)
        self._missing = []
        for record in task.records:
            chance = float(record.missing.get(missingness, 0.0))
            if chance > 0:
                entries = torch.as_tensor(np.array([name == record.name for name in holder]), device=device)
                older = torch.as_tensor(ageing[layout.names.index(age_label(record.name))], device=device)
                self._missing.append((record.name, chance, entries, older))

    def row(self, chart: Chart, key: Tensor, t: Tensor, last: Tensor | None) -> Tensor:
        """What is read now, float32 [B, n] in units, within the layout's bounds.

        Args:
            chart: of B patients.
            key, t: int64 [B], the patient's own, from which errors and missing records follow.
            last: float32 [B, n] the row of the step before; None at the first.
        """
        row = self._entries(self._read(chart, key, t))
        if self._gaps:
            row = torch.where(row.isnan(), self._centre if last is None else last, row)
        if last is not None:
            for name, chance, entries, older in self._missing:
                gone = (keys.uniform(key, t, f"missing {name}") < chance).unsqueeze(-1)
                row = torch.where(gone & entries, last + older, row)
        return row

    def _read(self, chart: Chart, key: Tensor, t: Tensor) -> Chart:
        """The chart with this visit's errors."""
        if not self._noisy:
            return chart
        when = self._read_at(chart)
        if when is None:
            errors = keys.normal(key, t, "measurement noise", (len(self._noisy),)).unbind(-1)
        else:
            errors = tuple(keys.normal(key, when[name], f"measurement noise {name}") for name, *_ in self._noisy)
        noisy = {
            name: (chart[name] + sd * error).clamp(low, high)
            for (name, sd, low, high), error in zip(self._noisy, errors, strict=True)
        }
        return self._reread({**chart, **noisy})

    def _entries(self, chart: Chart) -> Tensor:
        """The row of a chart whose records were all made now."""
        parts = [
            torch.stack([chart[name] for name in names], -1) if scalar else chart[names[0]].flatten(1)
            for scalar, names in self._runs
        ]
        parts.append(parts[0].new_zeros(parts[0].shape[0], self._records))
        return torch.cat(parts, dim=-1).to(torch.float32).clamp(self._low, self._high)
