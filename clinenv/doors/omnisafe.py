"""OmniSafe: the ids whose actions are amounts as its `CMDP`, the safety cost in the tuple.

OmniSafe 0.5.0 imports Safety-Gymnasium for environments of its own, and that needs Gymnasium 0.28. The algorithms need
neither, so where Safety-Gymnasium cannot be imported OmniSafe is loaded without it.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any, ClassVar

import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from clinenv.doors.making import boxed, cost_of_step, missing, patients
from clinenv.registration import ENVIRONMENTS

_ABSENT = "safety_gymnasium"


class _Absent(ModuleType):
    """In the place of Safety-Gymnasium, which is not used."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{self.__name__}.{name}: Safety-Gymnasium cannot be imported beside this Gymnasium")


@contextlib.contextmanager
def _without_safety_gymnasium() -> Iterator[None]:
    """While it lasts, an import of Safety-Gymnasium succeeds, with nothing in it."""
    try:
        importlib.import_module(_ABSENT)
        absent = False
    except ImportError:
        absent = True
        sys.modules[_ABSENT] = _Absent(_ABSENT)
    try:
        yield
    finally:
        if absent:
            del sys.modules[_ABSENT]


try:
    with _without_safety_gymnasium():
        from omnisafe.envs.core import CMDP, env_register
except ImportError as error:
    raise missing(error, "OmniSafe", 'pip install "clinenv[safe]" && pip install --no-deps omnisafe==0.5.0') from None

__all__ = ["OmniSafeEnv"]

_CONTINUOUS = ("ECGDrugContinuous-v0", "EHRWardDose-v0")


@env_register
class OmniSafeEnv(CMDP):
    """N patients as OmniSafe's adapters take them; importing this module registers it, `omnisafe.Agent("PPOLag",
    "ECGDrugContinuous-v0")` then finds it.

    Rows that end begin anew in the same step; `info["final_observation"]` [N, n] and its mask `_final_observation` hold
    the last of them. With one patient all tensors come without the first dimension, as OmniSafe wants them. OmniSafe's
    Gaussian policies know no bounds: an action outside the action space is clipped to it.

    Args:
        env_id: one of `support_envs()`.
        num_envs: N.
        device: where OmniSafe trains; the world is loaded there.
        arguments: of the environment (OmniSafe's `env_cfgs`).

    Raises:
        ValueError: an argument that is none.
        ImportError: OmniSafe is not installed.
    """

    _support_envs: ClassVar[list[str]] = [row["id"] for row in ENVIRONMENTS if row["id"] in _CONTINUOUS]
    need_time_limit_wrapper = False
    need_auto_reset_wrapper = False

    def __init__(self, env_id: str, num_envs: int = 1, device: Any = "cpu", **arguments: Any) -> None:
        super().__init__(env_id)
        settings: dict[str, Any] = {"uncertainty": False, **arguments}
        if isinstance(settings.get("world", ""), str):
            settings.setdefault("device", str(device))
        self._patients = patients(env_id, num_envs, AutoresetMode.SAME_STEP, tensors=True, **settings)
        self._num_envs = num_envs
        self._action_space = boxed("OmniSafe", "actions", self._patients.single_action_space)
        self._observation_space = boxed("OmniSafe", "observations", self._patients.single_observation_space)
        self._metadata = dict(self._patients.metadata)
        self._device = self._patients.episodes.device
        bounds = self._action_space.low, self._action_space.high
        self._low, self._high = (torch.as_tensor(x, device=self._device) for x in bounds)
        self._seed: int | None = None

    @property
    def max_episode_steps(self) -> int:
        """Steps after which an episode is cut off."""
        return self._patients.episodes.horizon_steps

    def set_seed(self, seed: int) -> None:
        """Of the patients from the next reset on."""
        self._seed = int(seed)

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Tensor, dict[str, Any]]:
        """New patients in all rows: those of the seed, or the next ones."""
        seed, self._seed = (self._seed if seed is None else seed), None
        observation, _ = self._patients.reset(seed=seed, options=options)
        return self._rows(observation), {}

    def step(self, action: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, dict[str, Any]]:
        """Observation, reward, cost, terminated, truncated (all float32, as OmniSafe's own environments), info."""
        given = action.detach().to(self._device).reshape(self._num_envs, -1)
        given = torch.minimum(torch.maximum(given, self._low), self._high)
        observation, reward, terminated, truncated, info = self._patients.step(given)
        cost, told = cost_of_step(info), {}
        if "final_obs" in info:
            told = {
                "final_observation": self._rows(info["final_obs"]),
                "_final_observation": self._rows(info["_final_obs"]),
            }
        numbers = (observation, reward, cost, terminated, truncated)
        return *(self._rows(x.to(torch.float32)) for x in numbers), told  # type: ignore[return-value]

    def render(self) -> Any:
        """The pictures of the rows, where the environment was made with a `render_mode`."""
        return self._patients.render()

    def close(self) -> None:
        """No step or reset is possible after it."""
        self._patients.close()

    def _rows(self, values: Tensor) -> Tensor:
        """A copy, OmniSafe writing into what it is given; of the only row where there is one."""
        return values[0].clone() if self._num_envs == 1 else values.clone()
