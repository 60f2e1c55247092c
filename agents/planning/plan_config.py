"""What every planner is told: how far it looks, how often it plans, and what a plan is made of."""

from __future__ import annotations

from dataclasses import dataclass

from agents.planning.problem import Optimiser

__all__ = ["PlanConfig"]


@dataclass(frozen=True)
class PlanConfig:
    """Settings that planners share; each planner's own config adds to them and makes its optimiser."""

    horizon: int = 8  # steps looked ahead
    candidates: int = 32  # plans scored in a round (in the first one the anchors and proposals count among them)
    particles: int = 6  # imagined futures of each plan
    nothing: float = 0.7  # prior probability of "nothing" at a decision; around a policy: of leaving its order alone
    every: tuple[int, ...] = (6,)  # anchors: each order at every n-th step (6 steps of 2 h: twice a day); of schedules
    block: int = 1  # steps that a decision is held for (acts: done at the first); of a menu: from one row to the next
    schedule: bool = False  # menus and doses: a plan is a course or two of doses at fixed hours
    finalists: int = 4  # best plans that get an independent second look (0: none); guards against a winner by chance
    keep_elites: float = 0.0  # share of the best plans that the next decision tries again
    replan_every: int = 1  # steps carried out before the next plan
    discount: float = 1.0  # per step

    def __post_init__(self) -> None:
        for name in ("horizon", "candidates", "particles", "replan_every", "block"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.finalists < 0 or not 0.0 <= self.keep_elites <= 1.0:
            raise ValueError(
                f"need finalists of 0 or more and keep_elites in [0, 1], got {self.finalists} and {self.keep_elites}"
            )
        if self.replan_every > self.horizon:
            raise ValueError(f"replan_every ({self.replan_every}) is past the horizon ({self.horizon}); lower it")

    @property
    def rows(self) -> int:
        """Imagined at once for a patient."""
        return self.candidates * self.particles

    def optimiser(self) -> Optimiser:
        """The planner of these settings."""
        raise NotImplementedError(f"{type(self).__name__} is no planner's config; take CEMConfig, MPPIConfig, ...")
