"""What a world is: the verbs that every learned model and every oracle answers to, and the rules they keep.

Letters in shapes: B patients, T visits, A orders (columns of an action); `*shape` is a Quantity's own, () for a scalar.
Numbers are float32 in the unit of their Quantity, keys and times int64; all of a world's tensors are on its device.

The rules, which `world_models.testing.check_world` checks:

- **State.** A NamedTuple of batch-first tensors, nested at will, whose first two leaves are `key` and `t` (`State`).
  It is never changed in place and holds everything a course depends on: saved, it is a snapshot.
- **Purity.** `initial`, `transition`, `observe` and `rekey` are functions of their arguments alone. Noise comes from
  `world_models.keys`, never from a global generator, so equal arguments give equal results.
- **Rows are independent.** Row i of a batch equals the same patient alone: bit for bit in an oracle, within 1e-4
  relative in a learned world, whose matrix products round differently with the size of the batch.
- **Bounds.** Every value in a chart lies within its Quantity's bounds.
- **Inputs are refused, never adjusted.** `initial` refuses factors, `transition` amounts and `observe` names that are
  unknown, of another shape, not real numbers, NaN or out of bounds, with a ValueError that names the value, the limit
  and the remedy. `world_models.inputs` has these checks; call them first thing in the verb.
- **No task.** A world never learns who asks: no Gymnasium, no reward, no policy in here.

What only some worlds have stands in small protocols of its own: `SupportsInfer`, `SplitsSpread`, `TellsFates`,
`CalibratesBands`, `HasMembers`, `HasWeights`, `HasConfig`, `HasCohort`, `HasTrial`, and `gradients.Differentiable`. Ask
with isinstance, which is true of any object with those members, whatever it inherits from:

    seal = world.weights_sha256 if isinstance(world, HasWeights) else None
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from world_models.quantity import Quantity

__all__ = ["Chart", "Factors", "HasCohort", "HasConfig", "HasTrial", "HasWeights", "History", "LearnedWorld", "Oracle"]
__all__ += ["CalibratesBands", "Fates", "HasMembers", "Parts", "SplitsSpread", "State", "SupportsInfer", "TellsFates"]
__all__ += ["UNKNOWN", "Treated", "WorldModel"]

Chart = dict[str, Tensor]  # what can be measured now: name -> [B, *shape]
Factors = Mapping[str, Tensor]  # what is fixed about a patient: name -> [B, *shape]


class State(Protocol):
    """B patients at one moment, as a world's NamedTuple holds them; each world adds leaves of its own.

    A floating-point leaf that may be unknown (NaN) is listed by name in the class attribute `MAY_BE_NAN`; a snapshot
    refuses NaN anywhere else.
    """

    @property
    def key(self) -> Tensor:
        """int64 [B]: the patients' random keys, from which all of their noise follows."""

    @property
    def t(self) -> Tensor:
        """int64 [B]: steps since the start."""


S = TypeVar("S", bound=State)
S_co = TypeVar("S_co", bound=State, covariant=True)
S_contra = TypeVar("S_contra", bound=State, contravariant=True)


class History(NamedTuple):
    """A recorded course, from which a learned world forms its belief. T visits of B patients, oldest first.

    `charts[:, 0]` was read before any dose of the record; `actions[:, i]` was given right after visit i, so the last
    row of actions is given at the last visit (zeros when nothing was given yet). NaN in a chart means not measured.
    """

    charts: Chart  # name -> [B, T, *shape]
    actions: Tensor  # [B, T, A] in the orders' units
    hours: Tensor  # [B, T] hours since the first visit, not decreasing


@runtime_checkable
class WorldModel(Protocol[S]):
    """A patient simulator over batches; the module's docstring states the rules that its verbs keep."""

    @property
    def name(self) -> str:
        """What reports and snapshots call it: "oracle", "ehr-ward-small"."""

    @property
    def measures(self) -> tuple[Quantity, ...]:
        """What `observe` can put in a chart; names are unique."""

    @property
    def orders(self) -> tuple[Quantity, ...]:
        """What can be ordered, one Quantity a column of the action; 0 orders nothing, whatever the least amount."""

    @property
    def factors(self) -> tuple[Quantity, ...]:
        """What `initial` lets a caller fix about a patient."""

    @property
    def hours_per_step(self) -> float:
        """Hours that one transition simulates, above 0; nominal where the action chooses the time to the next visit."""

    @property
    def device(self) -> torch.device:
        """Where its tensors live. Keys and states must be there; factors and actions are moved there."""

    def initial(self, key: Tensor, factors: Factors | None = None) -> S:
        """Patients at t = 0. Pure.

        Args:
            key: int64 [B], one a patient.
            factors: name -> [B, *shape] of what is fixed about them; whatever is left out is sampled from the key.

        Raises:
            ValueError: a factor that is unknown, of another shape, not real, or with a value (NaN is one) out of its
                bounds. `world_models.inputs.admit` takes factors that are NaN where a patient's is not known.
        """

    def read(self, chart: Chart) -> dict[str, Tensor]:
        """What this world can take from a recorded chart (an ECG, say) as factors for `initial`.

        Args:
            chart: name -> [B, *shape], any of `measures`, also those on request.

        Returns:
            Name -> [B, *shape], NaN in the rows whose chart does not say it; `world_models.inputs.admit` has those
            sampled.
        """

    def transition(self, state: S, action: Tensor) -> S:
        """The patients one step of `hours_per_step` later, t grown by one. Pure.

        Args:
            action: [B, A] amounts in the orders' units, given at the beginning of the step.

        Raises:
            ValueError: an action of another shape, or an amount that is neither 0 nor within its order's bounds.
        """

    def observe(self, state: S, also: Sequence[str] = ()) -> Chart:
        """What can be measured now: name -> [B, *shape], within the bounds of its Quantity. Pure.

        Args:
            also: names of measures `on_request` (costly ones, such as an ECG) to put in besides all others.

        Raises:
            ValueError: `also` names something that is no measure.
        """

    def rekey(self, state: S, key: Tensor) -> S:
        """The same patients at the same t, whose future and unknowns follow from other keys, int64 [B]. Pure.

        What the world does not know of a patient is sampled anew; what is fixed about them, or was measured, stays.
        """

    def spread(self, state: S) -> dict[str, Tensor]:
        """Standard deviation [B] of the model's prediction for each measure it is unsure of, in the measure's unit."""

    def support(self, state: S) -> Tensor:
        """bool [B]: the state lies within what the model was fitted or trained on."""


@runtime_checkable
class SupportsInfer(Protocol[S_co]):
    """What can start from a recorded course of a patient, and not only from the factors at t = 0."""

    def infer(self, history: History, key: Tensor, factors: Factors | None = None) -> S_co:
        """Belief about the patients at the last visit of their history, before its action is given. Pure.

        Args:
            history: T visits of B patients.
            key: int64 [B]; what the history leaves unknown is sampled from it.
            factors: name -> [B, *shape] of what is known besides.

        Raises:
            ValueError: factors as in `WorldModel.initial`, or a history the world cannot go on from.
        """


class Parts(NamedTuple):
    """Standard deviations of one measure's prediction, in its unit; spread^2 = epistemic^2 + aleatoric^2."""

    spread: Tensor
    epistemic: Tensor  # because the patient is not known well enough: it shrinks as more is seen of him
    aleatoric: Tensor  # by chance from moment to moment: it stays


@runtime_checkable
class SplitsSpread(Protocol[S_contra]):
    """What can tell which part of its `spread` is not knowing the patient, and which is chance."""

    def spread_parts(self, state: S_contra) -> dict[str, Parts]:
        """Parts, each [B], of the measures in `WorldModel.spread`, whose numbers are their first. Pure."""


class Fates(NamedTuple):
    """What a step might have brought besides the course that it brought: rare events, of which at most one strikes."""

    spared: Any  # the state after the step, had none of them struck in it
    chances: dict[
        str, Tensor
    ]  # measure that tells of the event -> [B] its chance in the step, 0 where it cannot strike
    values: dict[str, float]  # measure -> what the chart then says; all else of the chart is as in `spared`


@runtime_checkable
class TellsFates(Protocol[S_contra]):
    """What draws events by chances that it knows, so that an expectation over them can be taken without drawing."""

    def fates(self, before: S_contra, after: S_contra) -> Fates:
        """Of the step from `before` to `after` (what `transition` made of it). Pure."""


@runtime_checkable
class HasMembers(Protocol[S_contra]):
    """Several worlds behind one protocol: each patient lives in one of them, and `rekey` draws which."""

    @property
    def members(self) -> tuple[Any, ...]:
        """The worlds."""

    def member_of(self, state: S_contra) -> Tensor:
        """int64 [B]: which of the members each patient lives in."""

    def disagreement(self, state: S_contra) -> dict[str, Tensor]:
        """Standard deviation [B] between what the members foretell, of the measures in `WorldModel.spread`."""


class Treated(NamedTuple):
    """A patient and his treatment, as far as a band's calibration asks; None: not known."""

    drug: str | None = None  # "nothing": none
    dose_mg: float | None = None  # a single one
    female: bool | None = None


UNKNOWN = Treated()


@runtime_checkable
class CalibratesBands(Protocol):
    """What corrects the bands of its own samples, so that they cover what they say they cover.

    The correction is of the middle 90 % of many samples, on simulated patients that no training met
    (`ecg_wm.conformal`).
    """

    def calibrated(self, name: str, low: Tensor, high: Tensor, whom: Treated = UNKNOWN) -> tuple[Tensor, Tensor]:
        """The corrected ends [...] of the band of a measure, or of one of `ecg_wm.bands.OVER_A_COURSE`.

        Args:
            name: what was never calibrated comes back as it is.
            low, high: [...] the 5 % and 95 % quantiles of the samples, in the measure's unit; NaN stays NaN.
            whom: whose samples they are.
        """


@runtime_checkable
class HasConfig(Protocol):
    """What was built from a configuration: a frozen dataclass, of which a snapshot keeps the checksum."""

    @property
    def config(self) -> Any:
        """The dataclass; every world has one of its own."""


@runtime_checkable
class HasWeights(Protocol):
    """What was loaded from a sealed folder of weights (`world_models.checkpoint`)."""

    @property
    def weights_sha256(self) -> str | None:
        """The folder's seal, hexadecimal SHA-256 over config and weights; None: the weights were never saved."""


@runtime_checkable
class HasCohort(Protocol):
    """What samples its patients from a cohort that can be chosen."""

    @property
    def cohort(self) -> Any:
        """The cohort's name, or the dataclass that defines it."""


@runtime_checkable
class HasTrial(Protocol):
    """What was fitted to a clinical trial."""

    @property
    def trial(self) -> Any:
        """The fit (`oracles.ecg_drug.population.TrialModel`); its `parameters["provenance"]` names the data."""


@runtime_checkable
class LearnedWorld(WorldModel[S], SupportsInfer[S], HasConfig, Protocol[S]):
    """A trained world: it has a configuration, and can also start from what was recorded of a real patient."""


@runtime_checkable
class Oracle(WorldModel[S], Protocol[S]):
    """A mechanistic world whose hidden state is known."""

    def truth(self, state: S) -> dict[str, Tensor]:
        """Hidden quantities, name -> [B, ...]: for judging and for tests only, never in the chart."""
