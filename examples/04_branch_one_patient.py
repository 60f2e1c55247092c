"""One patient at one moment, several futures: snapshot, restore; other orders, or the same and another chance."""

from __future__ import annotations

import argparse

import gymnasium

import clinenv  # noqa: F401  (registers the ids)


def day(env: gymnasium.Env, first: int) -> list[float]:
    """QTcF of the next 12 h after `first` is ordered and nothing more."""
    course = []
    for step in range(6):
        observation, *_ = env.step(first if step == 0 else 0)
        course.append(env.unwrapped.describe(observation)["qtcf_ms"])
    return course


def main(argv: list[str] | None = None) -> dict[str, list[float]]:
    """Prints and returns the QTcF of the next 12 h, one course a future."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", default="ecg-wm-small", help="or oracle")
    args = parser.parse_args(argv)

    env = gymnasium.make("ECGDrug-v0", world=args.world)
    env.reset(seed=3, options={"baseline_qtcf_ms": 430.0})
    patient = env.unwrapped
    for _ in range(3):
        env.step(0)
    here = patient.snapshot()  # bytes: keep them in a file, send them to another machine

    courses = {}
    for number, (label, _) in enumerate(patient.task.actions.entries):
        patient.restore(here)
        courses[label] = day(patient, number)
    patient.restore(here)
    assert day(patient, 4) == courses["dofetilide 0.5 mg"], "the same orders and the same chance: the same future"
    for number in range(3):
        patient.restore(here, seed=number)
        courses[f"dofetilide 0.5 mg, chance {number}"] = day(patient, 4)
    for label, course in courses.items():
        print(f"{label:28s}" + "".join(f"{qtcf:7.0f}" for qtcf in course))
    env.close()
    return courses


if __name__ == "__main__":
    main()
