"""The door between patients and a decider: a chart goes out as an observation, an action comes in as orders.

Measurement noise and missing records exist here only. Reward, cost and the end are judged on the true chart: a policy
is paid for what happens to the patient, not for what the ECG machine printed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from clinenv.registration import WEIGHTS_SHA256
from clinenv.spaces import Layout, Orders, action_space, layout, waveform_space
from clinenv.task import Column, Losses, Task, View
from world_models import keys, tree
from world_models.protocol import Chart, WorldModel
from world_models.quantity import Quantity, by_name

__all__ = ["MISSINGNESS", "NOISE", "OBSERVATIONS", "Door"]

NOISE = {"none": 0.0, "clinic": 1.0, "ward": 2.0}  # multiples of the column's noise_sd: a careful, a hurried reading
MISSINGNESS = ("none", "some", "much")
OBSERVATIONS = ("chart", "ecg", "latent")
SHIPPED = "ecg-wm-small"  # whose encoder reads the ECGs of worlds without a latent
OLDEST_RECORD_HOURS = 96.0  # an older record reads as this old


class Door:
    """Spaces and translations for one world and one task; holds no patient.

    A record that was not made shows its last values, as a chart at the bedside does, and `hours_since_<record>` says
    how old they are (0: made now; the admission record is always made). So every observation lies in its Box, its
    layout is the same for all tiers, and a policy trained in one can be tried in another.

    A task may bring other observations (`Task.views`); they are made from the same row of values.

    Raises:
        ValueError: an unknown tier or observation, or a world that cannot give the observation asked for.
    """

    def __init__(
        self,
        world: WorldModel,
        task: Task,
        observation: str = "chart",
        noise: str = "none",
        missingness: str = "none",
        action_unit: str = "scaled",
    ) -> None:
        views: Mapping[str, Callable[[Layout, WorldModel], View]] = getattr(task, "views", None) or {}
        _known("observation", observation, ("chart", *views) if views else OBSERVATIONS)
        _known("noise", noise, tuple(NOISE))
        _known("missingness", missingness, MISSINGNESS)
        self.task = task
        self.world = world
        self.device = torch.device(world.device)
        self.kind = observation
        self.settings = {"observation": observation, "noise": noise, "missingness": missingness}
        self.missing = {record.name: float(record.missing.get(missingness, 0.0)) for record in task.records}
        self.action_space = action_space(task.actions, action_unit)
        self.orders = Orders(task.actions, world.orders, action_unit, self.device)
        losses: Losses | None = getattr(task, "losses", None)
        self._loss = 0.0 if losses is None else float(losses.chance.get(missingness, 0.0))
        self._losable = torch.tensor([losses is not None and q.name in losses.orders for q in world.orders])
        self._losable = self._losable.to(self.device)

        measured = {q.name: q for q in world.measures}
        extra = []
        for record in task.records:
            age = f"hours_since_{record.name}"
            extra.append((Column(age, 0.0, 12.0), Quantity(age, "h", 0.0, OLDEST_RECORD_HOURS)))
        self.also: tuple[str, ...] = ()
        self._encode: Callable[[Tensor, Chart], Tensor] | None = None
        if observation == "ecg":
            self.also = _asked(world, measured, "ecg_mv")
        elif observation == "latent":
            if "latent" in measured:
                self.also, latent = ("latent",), measured["latent"]
            else:  # a world without a latent of its own: the shipped model's encoder reads the ECG it draws
                self.also = _asked(world, measured, "ecg_mv")
                if measured["ecg_mv"].shape != (12, 5000):
                    raise ValueError(
                        f"world {world.name!r} has no latent, and {SHIPPED}'s encoder reads ten seconds at 500 Hz, not "
                        f"ECGs of shape {measured['ecg_mv'].shape}; use observation='ecg' or 'chart'"
                    )
                self._encode, latent = _shipped_encoder(str(self.device))
            extra.append((Column("latent", 0.0, 1.0), latent))
        self.layout = layout(task.observation, world.measures, tuple(extra))
        box = self.layout.box()
        self.observation_space: spaces.Space = box
        if observation == "ecg":
            self.observation_space = spaces.Dict({"chart": box, "ecg": waveform_space(measured["ecg_mv"])})
        self.view = views[observation](self.layout, world) if observation in views else None
        if self.view is not None:
            self.observation_space = self.view.space

        def on_device(x: np.ndarray) -> Tensor:
            return torch.as_tensor(x, device=self.device)

        # neighbouring measures of one number a patient are stacked together; others stand alone
        scalars = itertools.groupby(task.observation, key=lambda c: measured[c.name].shape == () or c.name)
        self._runs = [(kind is True, [c.name for c in run]) for kind, run in scalars]
        self._centre, self._scale = on_device(self.layout.centre), on_device(self.layout.scale)
        self._log = on_device(self.layout.log) if self.layout.log.any() else None
        if self._log is not None:
            self._centre = torch.where(self._log, self._centre.log(), self._centre)
        self._low, self._high = on_device(self.layout.low), on_device(self.layout.high)
        self._box_low, self._box_high = on_device(box.low), on_device(box.high)
        sd = NOISE[noise]
        self._noisy = [(c.name, c.noise_sd * sd) for c in task.observation if c.noise_sd > 0 and sd > 0]
        self._read_at: Callable[[Chart], Mapping[str, Tensor]] | None = getattr(task, "read_at", None)
        self._noisy_bounds = {name: (measured[name].low, measured[name].high) for name, _ in self._noisy}
        # which entries of the flat row go missing with which record
        entry_record: list[str] = []
        for column in task.observation:
            entry_record += [column.record] * int(np.prod(measured[column.name].shape, dtype=int))
        entry_record += [record.name for record in task.records]
        if observation == "latent":
            holder = next((r.name for r in task.records if "ecg_mv" in r.waveforms), "")
            entry_record += [holder] * int(np.prod(latent.shape, dtype=int))
        self._entries = {name: on_device(np.array([r == name for r in entry_record])) for name in self.missing}
        self._age_entry = {r.name: self.layout.names.index(f"hours_since_{r.name}") for r in task.records}
        ageing = np.eye(len(self.layout.names), dtype=np.float32) * np.float32(world.hours_per_step)
        self._one_step_older = {name: on_device(ageing[entry]) for name, entry in self._age_entry.items()}

    def lose(self, orders: Tensor, key: Tensor, t: Tensor) -> Tensor:
        """The orders [B, A] less those that get lost at this step, by the patient's own luck."""
        if self._loss <= 0:
            return orders
        gone = keys.uniform(key, t, "lost order", (orders.shape[1],)) < self._loss
        return torch.where(gone & self._losable, 0.0, orders)

    def observe(
        self, chart: Chart, key: Tensor, t: Tensor, shown: Tensor | None, given: Tensor | None = None
    ) -> tuple[Any, Tensor]:
        """The observation of `chart`, and what is shown now, to be handed back at the next step.

        Args:
            chart: of B patients, with the measures of `self.also`.
            key, t: int64 [B], the patient's own, from which noise and missing records follow.
            shown: float32 [B, n] of the step before, in units; None at the first.
            given: float32 [B, A] the orders carried out since then; None at the first.

        Returns:
            The observation on the device (float32 [B, n], or a dict of such for "ecg"), and the new `shown`.
        """
        values = self._row(self._read(chart, key, t))
        if shown is not None:
            for name, chance in self.missing.items():
                if chance > 0:
                    gone = (keys.uniform(key, t, f"missing {name}") < chance).unsqueeze(-1)
                    older = shown + self._one_step_older[name]
                    values = torch.where(gone & self._entries[name], older, values)
        if self.view is not None:
            before = None if shown is None else shown[:, : values.shape[1]]
            values = torch.cat([values, self.view.keep(values, before, given)], -1)
        return self.show(values, chart), values

    def show(self, values: Tensor, chart: Chart) -> Any:
        """The observation that shows `values` [B, n] (in units) and the waveforms of `chart`."""
        entries = len(self.layout.names)
        row, kept = values[:, :entries], values[:, entries:]
        linear = row if self._log is None else torch.where(self._log, torch.where(self._log, row, 1.0).log(), row)
        scaled = ((linear - self._centre) / self._scale).clamp(self._box_low, self._box_high)
        if self.view is not None:
            return self.view.show(scaled, row, kept)
        if self.kind != "ecg":
            return scaled
        ecg = chart["ecg_mv"].flatten(1).clone()  # never the world's own memory: a caller may write into it
        for record in self.task.records:
            if self.missing[record.name] > 0 and "ecg_mv" in record.waveforms:
                made = values[:, self._age_entry[record.name]] == 0
                ecg = torch.where(made.unsqueeze(-1), ecg, 0.0)
        return {"chart": scaled, "ecg": ecg}

    def release(self, observation: Any) -> Any:
        """Observations as they leave: numpy arrays [B, ...] in fresh memory, or a tuple of B objects."""
        if self.view is not None:
            return self.view.release(observation)
        return tree.map_leaves(lambda x: x.cpu().numpy(), observation)

    def describe(self, observation: Any) -> dict[str, Any]:
        """What an observation of the chart says, in units.

        Raises:
            ValueError: an observation without the chart's row.
        """
        if self.view is not None:
            raise ValueError(f"observation={self.kind!r} holds no row of the chart to describe; it speaks for itself")
        if isinstance(observation, Mapping) and "chart" not in observation:
            raise ValueError(f"an observation of {', '.join(map(str, observation)) or 'nothing'} has no 'chart' to describe")
        return self.layout.describe(observation["chart"] if isinstance(observation, Mapping) else observation)

    def _read(self, chart: Chart, key: Tensor, t: Tensor) -> Chart:
        """The chart as it was read, with this visit's measurement noise."""
        if not self._noisy:
            return chart
        if self._read_at is None:
            drawn = keys.normal(key, t, "measurement noise", (len(self._noisy),)).unbind(-1)
        else:  # a charted value keeps the error it was read with
            when = self._read_at(chart)
            drawn = [keys.normal(key, when[name], f"measurement noise {name}") for name, _ in self._noisy]
        noisy = {
            name: (chart[name] + sd * error).clamp(*self._noisy_bounds[name])
            for (name, sd), error in zip(self._noisy, drawn, strict=True)
        }
        return self.task.reread({**chart, **noisy})

    def _row(self, chart: Chart) -> Tensor:
        """float32 [B, n] in units, within the layout's bounds."""
        parts = [
            torch.stack([chart[name] for name in names], -1) if scalar else chart[names[0]].flatten(1)
            for scalar, names in self._runs
        ]
        parts.append(parts[0].new_zeros(parts[0].shape[0], len(self.task.records)))
        if self.kind == "latent":
            latent = chart["latent"] if self._encode is None else self._encode(chart["ecg_mv"], chart)
            parts.append(latent.flatten(1))
        return torch.cat(parts, dim=-1).to(torch.float32).clamp(self._low, self._high)


def _known(what: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{what} {value!r} is unknown; choose one of {', '.join(choices)}")


def _shipped_encoder(device: str) -> tuple[Callable[[Tensor, Chart], Tensor], Quantity]:
    """The learned latent of any world's ECG, and its bounds."""
    from world_models import catalog
    from world_models.ecg_wm.encode import latent_of

    learned = catalog.load(SHIPPED, device, sha256=WEIGHTS_SHA256.get(SHIPPED))
    latent = by_name(learned.measures, "latent")

    def encode(ecg_mv: Tensor, chart: Chart) -> Tensor:
        return latent_of(ecg_mv, chart, learned.vae).clamp(latent.low, latent.high)

    return encode, latent


def _asked(world: WorldModel, measured: dict[str, Quantity], name: str) -> tuple[str, ...]:
    if name not in measured:
        raise ValueError(
            f"world {world.name!r} draws no {name}; it measures {', '.join(measured)}. Choose observation='chart', or a world "
            "of this task that draws it"
        )
    return (name,)
