"""Log two kinds of treatment in the oracle, and ask the log what another would have earned: estimates beside the truth.

The log is made twice: by colleagues who read the chart alone, and by colleagues of whom the sicker patients' decide
more (the dial of confounding at 1). Importance sampling needs the chance of every decision, which the log holds.
"""

from __future__ import annotations

import argparse

import torch

from agents.offline.acting import Acting
from agents.offline.charts import ChartReader
from agents.offline.choices import Choices
from agents.offline.collect import collect
from agents.offline.ope.doubly_robust import weighted_doubly_robust
from agents.offline.ope.evidence import effective_size, evidence_of, once, replay
from agents.offline.ope.fitted_q import FittedQ
from agents.offline.ope.weighted_importance import weighted_importance_sampling
from agents.offline.recipes import CASES, behaviour, colleagues, simulator_of
from agents.rollout import judge
from world_models import keys

ID, POLICY = "ECGDrug-v0", "no treatment"


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Logs, estimates, and returns every estimate and the truth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", default="oracle", help="whose patients are logged; one that knows what it hides")
    parser.add_argument("--patients", type=int, default=1500)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)

    simulator, steps = simulator_of(ID, args.world), CASES[ID].steps
    policy = colleagues(ID, simulator)[POLICY]
    judged = keys.fold(keys.from_seed(0, 4 * args.patients), "judge")  # patients that no log holds
    found = {"truth": float(judge(Acting(policy), simulator, judged, steps).returns.mean())}
    print(f"Simulated patients. {POLICY!r} earns {found['truth']:.2f}")
    for dial in (0.0, 1.0):
        acting, nominal = (Acting(behaviour(ID, "mixed", simulator, d), seed=1) for d in (dial, 0.0))
        log = collect(acting, simulator, 1, args.patients, steps, ID, nominal)
        reader, choices = ChartReader(simulator, log), Choices(simulator)
        replayed = replay(Acting(policy), log, reader)
        q, v = FittedQ.crossed(log, choices).held_out(replayed)
        evidence = evidence_of(log, replayed, q, v)
        for name, estimator in (("weighted IS", weighted_importance_sampling), ("weighted DR", weighted_doubly_robust)):
            found[f"{name}, dial {dial:g}"] = float(estimator(evidence, once(evidence)))
        told = evidence_of(log, replayed, told=True)
        found[f"weighted IS, told, dial {dial:g}"] = float(weighted_importance_sampling(told, once(told)))
        size = effective_size(evidence)
        print(f"dial {dial:g}: the log's own mean {log.returns.mean():.2f}, {size:.0f} effective stays")
    for name, value in found.items():
        if name != "truth":
            print(f"{name:28s} {value:6.2f}   error {value - found['truth']:+.2f}")
    return found


if __name__ == "__main__":
    main()
