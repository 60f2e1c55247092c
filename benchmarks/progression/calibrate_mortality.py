"""The background of `mortality`, from the life table: `python -m benchmarks.progression.calibrate_mortality`.

For each age and sex of the table, patients of the cohort "community" are drawn at the middle of the year and their
rates of death told as multiples of their background, with what the onsets of the year kill of at once. The background
is what makes the mean meet the table. Its own pull on who comes (`entry`: who had died does not) is taken in by going
round a few times. Prints the lines to put into `mortality.BACKGROUND`; writes nothing.
"""

from __future__ import annotations

import argparse
import math

import torch
from torch import Tensor

from world_models import keys
from world_models.life_table import LIFE_TABLE
from world_models.oracles.progression import mortality
from world_models.oracles.progression import state as body
from world_models.oracles.progression.entry import FACTORS
from world_models.oracles.progression.world import ProgressionOracle
from world_models.quantities.progression import CODES
from world_models.quantities.treated_columns import joined
from world_models.quantity import by_name

__all__ = ["main", "multiples"]

SEED = 8
OLDEST_ENTRY_YEARS = by_name(FACTORS, "age_years").high


def multiples(age: float, sex: float, count: int) -> tuple[float, float]:
    """Mean rate of death as a multiple of the background, and deaths a year by onsets that kill at once."""
    given = {"age_years": torch.full((count,), min(age, OLDEST_ENTRY_YEARS)), "sex_female": torch.full((count,), sex)}
    state = ProgressionOracle(cohort="community").initial(keys.from_seed(SEED, count), given)
    years = torch.full((count,), age)
    treated = joined(state.procedures, state.drugs)
    static = body.static_rates(state.sex_female, state.frailty)
    held = (state.present, state.ever, state.years_since_onset, state.traits, treated)
    rates = body.log_rates(static, state.sex_female, years, *held).exp()
    # frailty lifts a person's own background; the mean of it is 1
    own = body.background_per_year(static * 0.0, state.sex_female, years)
    return float((rates[:, 2 * len(CODES)] / own).mean()), float(_killed(rates, state.present, years).mean())


def _killed(rates: Tensor, present: Tensor, years: Tensor) -> Tensor:
    table = body.tables(rates.device)
    decades = ((years - 60.0) * 0.1).clamp_max(body.OLDEST_KILLED).unsqueeze(-1)
    chance = (table.log_fatality + decades * body.FATALITY_PER_DECADE).exp()
    absent = ~present[:, table.mortal]
    return (rates[:, table.mortal] * chance * absent).sum(-1)


def _round(count: int) -> dict[int, tuple[float, float]]:
    found: dict[int, tuple[float, float]] = {}
    ages = list(LIFE_TABLE)
    sexes = []
    for sex in range(2):
        column = []
        for age in ages:
            wanted = -math.log1p(-LIFE_TABLE[age][sex] / 1000.0)
            times, killed = multiples(age + 0.5, float(sex), count)
            column.append(1000.0 * (wanted - killed) / times)
        # the year's middle lies half a year past the birthday: back along the line to the next age
        steps = [math.log(b / a) / 10.0 for a, b in zip(column, column[1:], strict=False)]
        steps.append(0.0)
        sexes.append([x * math.exp(-0.5 * s) for x, s in zip(column, steps, strict=True)])
    for i, age in enumerate(ages):
        found[age] = (float(f"{sexes[0][i]:.3g}"), float(f"{sexes[1][i]:.3g}"))
    return found


def main(argv: list[str] | None = None) -> int:
    """Print the background and, beside it, its share of the table. Returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--patients", type=int, default=4000, help="of each age and sex")
    parser.add_argument("--rounds", type=int, default=3)
    a = parser.parse_args(argv)
    for name in ("patients", "rounds"):
        if getattr(a, name) < 1:
            parser.error(f"--{name} is {getattr(a, name)}; give 1 or more")
    torch.set_num_threads(1)
    for turn in range(a.rounds):
        background = _round(a.patients)
        mortality.BACKGROUND.update(background)
        body.tables.cache_clear()
        print(f"round {turn + 1}")
        for age, (men, women) in background.items():
            of = " ".join(f"{x / y:.2f}" for x, y in zip((men, women), LIFE_TABLE[age], strict=True))
            print(f"    {age}: ({men:g}, {women:g}),  # {of} of the table")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
