"""The agents by name: a literal table, as the catalogue of worlds is one. The leaderboard and the command line read it.

To add an agent: a function `build(making, **options)` that gives an `Agent`, or a `Built` where there is more to say
(`agents.making`), and one `Entry` here. Strings only, so that reading the table loads no library.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agents.making import Built, Making

__all__ = [
    "AGENTS",
    "CLINIC",
    "DRUG",
    "EVERY_ID",
    "EXPLAIN",
    "KINDS",
    "WARD",
    "Entry",
    "agents_for",
    "build",
    "entry",
    "find",
]

DRUG = ("ECGDrug-v0", "ECGDrugContinuous-v0")
MENU_WARD = ("EHRWard-v0", "EHRReplay-v0")  # switches
WARD = (*MENU_WARD, "EHRWardDose-v0")
CLINIC, EXPLAIN = "ECGProgression-v0", "ECGExplain-v0"
EVERY_ID = (*DRUG, *WARD, CLINIC, EXPLAIN)

# rule: written by clinicians; constant: looks at nothing; policy: trained; planner: searches at every decision;
# reference: knows what no rival may know (it was made in the oracle, or sees more), and is ranked with nobody
KINDS = ("rule", "constant", "policy", "planner", "reference")
WORLDS = ("none", "learned", "oracle")


@dataclass(frozen=True)
class Entry:
    """One agent of the table.

    Raises:
        ValueError: an unknown kind or world, no id, fewer than one seed, or a rival that was made in the oracle.
    """

    name: str
    ids: tuple[str, ...]
    build: str  # "module:function"
    kind: str
    source: str  # where the rule stands or the method was published, or what it is
    made_in: str = "none"  # world in which it is tuned, trained or plans
    seeds: int = 1  # how many are judged: three where chance has a part in the making or the deciding
    sees: tuple[str, ...] = ()  # measures beyond the task's observation
    options: Mapping[str, Any] = field(default_factory=dict)  # further arguments of the builder
    slow: bool = False  # thinks long at every decision: judged on fewer patients
    isolated: bool = False  # decides in a process of its own that is handed charts alone
    owns_state: bool = False  # a reference that is told its patients' true states, though never their luck

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.made_in not in WORLDS:
            raise ValueError(
                f"agent {self.name!r} has kind {self.kind!r} and made_in {self.made_in!r}; kinds are "
                f"{', '.join(KINDS)}, worlds {', '.join(WORLDS)}"
            )
        if not self.ids or self.seeds < 1:
            raise ValueError(f"agent {self.name!r} needs at least one id and one seed")
        knows = self.made_in == "oracle" or self.owns_state
        if knows and self.kind != "reference":
            raise ValueError(f"agent {self.name!r} knows the oracle that judges it: its kind is reference")


_RULES, _CONSTANTS, _EXPLAIN = "agents.baselines.rules", "agents.baselines.constants", "agents.baselines.explain_rules"
_PLANNERS, _TUNED, _POLICIES = "agents.planning.builders", "agents.baselines.tuned_rules", "agents.policy_builders"
TIKOSYN = "Tikosyn (dofetilide) US label, sections 2 and 4"
CLINICIAN = (
    "Surviving Sepsis Campaign 2021 (doi 10.1007/s00134-021-06506-y), hyperglycaemic crises (PMID 19564476), "
    "transfusion at 7 g/dL"
)
CEM = "Rubinstein 1999 (doi 10.1023/A:1010091220143)"
ROLLOUT = "Bertsekas & Castanon 1999 (doi 10.1023/A:1009634810396)"
GUIDELINES = "ESC 2019 to 2021 guidelines and CHA2DS2-VASc: see agents.baselines.progression_rule"

AGENTS: tuple[Entry, ...] = (
    Entry("random", EVERY_ID, f"{_RULES}:random_actions", "constant", "every action equally likely", seeds=3),
    Entry("nothing", EVERY_ID, f"{_RULES}:nothing", "constant", "no order; the longest interval; no explanation"),
    Entry(
        "dofetilide 0.25 mg every 12 h, without looking",
        DRUG,
        f"{_CONSTANTS}:dofetilide",
        "constant",
        "half the label's dose",
    ),
    Entry("best constant", EVERY_ID, f"{_CONSTANTS}:best", "constant", "chosen on tuning patients", "learned"),
    Entry(
        "best constant of the oracle",
        EVERY_ID,
        f"{_CONSTANTS}:best",
        "reference",
        "chosen where it is judged",
        "oracle",
    ),
    Entry("dofetilide label rule", DRUG, f"{_RULES}:dofetilide_label", "rule", TIKOSYN),
    Entry(
        "best constant, stopped by the QTc",
        DRUG,
        f"{_CONSTANTS}:best",
        "rule",
        "AHA/ACCF 2010 on torsade in hospital (doi 10.1161/CIRCULATIONAHA.109.192704); ICH E14",
        "learned",
        options={"guarded": True},
    ),
    Entry("clinician's rule", WARD, f"{_RULES}:clinician", "rule", CLINICIAN),
    Entry("guideline rule", (CLINIC,), f"{_RULES}:guideline", "rule", GUIDELINES),
    Entry(
        "guideline rule, the reader's thresholds",
        (CLINIC,),
        f"{_RULES}:guideline",
        "rule",
        GUIDELINES,
        "learned",
        options={"thresholds": "reader"},
    ),
    Entry(
        "guideline rule told the diagnoses",
        (CLINIC,),
        f"{_RULES}:guideline",
        "reference",
        GUIDELINES,
        sees=("condition",),
        options={"measure": "condition"},
    ),
    Entry("commonest transition", (EXPLAIN,), f"{_EXPLAIN}:commonest", "constant", "of known pairs", "learned"),
    Entry("nearest pair", (EXPLAIN,), f"{_EXPLAIN}:nearest", "rule", "of known pairs, by cosine", "learned"),
    Entry("prior alone", (EXPLAIN,), f"{_EXPLAIN}:prior_alone", "rule", "frequencies in known pairs", "learned"),
    Entry("beam search", (EXPLAIN,), f"{_EXPLAIN}:beam", "planner", "by the task's own distance", "learned"),
    Entry("posterior beam", (EXPLAIN,), f"{_EXPLAIN}:posterior", "planner", "agents.planning.explain_*", "learned"),
    Entry(
        "rule tuned by CEM",
        (*WARD, CLINIC),
        f"{_TUNED}:tuned_rule",
        "policy",
        "Rubinstein 1999 (doi 10.1023/A:1010091220143) over the rule's knobs",
        "learned",
        seeds=3,
    ),
    Entry(
        "rule tuned by CEM in the oracle",
        (*WARD, CLINIC),
        f"{_TUNED}:tuned_rule",
        "reference",
        "the same search in the world that judges",
        "oracle",
    ),
    Entry(
        "PPO",
        (*DRUG, CLINIC, EXPLAIN),
        f"{_POLICIES}:ppo",
        "policy",
        "Schulman 2017 (arXiv 1707.06347), agents.ppo",
        "learned",
        seeds=3,
    ),
    Entry(
        "PPO of Stable-Baselines3",
        ("ECGDrug-v0",),
        f"{_POLICIES}:sb3",
        "policy",
        "Schulman 2017 (arXiv 1707.06347), Raffin 2021",
        "learned",
        seeds=3,
        options={"algo": "ppo"},
    ),
    Entry(
        "PPO on the rule's knobs",
        ("EHRWardDose-v0",),
        f"{_POLICIES}:ward_knobs",
        "policy",
        "Schulman 2017 (arXiv 1707.06347), Raffin 2021; agents.sb3.ward",
        "learned",
        seeds=3,
    ),
    Entry("CEM", (*DRUG, CLINIC, EXPLAIN), f"{_PLANNERS}:search", "planner", CEM, "learned", 3, ("latent",), slow=True),
    Entry(
        "iCEM",
        ("ECGDrugContinuous-v0",),
        f"{_PLANNERS}:search",
        "planner",
        "Pinneri 2020 (arXiv 2008.06389)",
        "learned",
        seeds=3,
        options={"planner": "icem"},
        slow=True,
    ),
    Entry(
        "rule improved by rollouts",
        DRUG,
        f"{_PLANNERS}:rollout",
        "planner",
        ROLLOUT,
        "learned",
        slow=True,
    ),
    Entry(
        "clinician's rule improved by rollouts",
        WARD,
        f"{_PLANNERS}:rollout",
        "planner",
        ROLLOUT,
        "learned",
        slow=True,
    ),
    Entry(
        "guideline rule improved by rollouts",
        (CLINIC,),
        f"{_PLANNERS}:rollout",
        "planner",
        ROLLOUT,
        "learned",
        sees=("latent",),
    ),
    Entry(
        "CEM in the oracle",
        DRUG,
        f"{_PLANNERS}:search",
        "reference",
        "the same search in the world that judges, told its patients' true states",
        "oracle",
        slow=True,
        owns_state=True,
    ),
    # Not in the clinic, whose oracle draws and reads an ECG at every visit, also those that are imagined: hours
    Entry(
        "rule improved by rollouts in the oracle",
        (*DRUG, "EHRWard-v0", "EHRWardDose-v0"),
        f"{_PLANNERS}:rollout",
        "reference",
        "the same rollouts in the world that judges, told its patients' true states",
        "oracle",
        sees=("latent",),
        slow=True,
        owns_state=True,
    ),
)


def agents_for(env_id: str) -> tuple[Entry, ...]:
    """The agents of an environment.

    Raises:
        ValueError: no agent is for this id.
    """
    found = tuple(e for e in AGENTS if env_id in e.ids)
    if not found:
        raise ValueError(f"no agent is for {env_id!r}; the ids are {', '.join(EVERY_ID)}")
    return found


def entry(name: str) -> Entry:
    """An agent by its name.

    Raises:
        ValueError: there is none.
    """
    found = next((e for e in AGENTS if e.name == name), None)
    if found is None:
        raise ValueError(f"there is no agent {name!r}; there are: {', '.join(e.name for e in AGENTS)}")
    return found


def find(address: str) -> Any:
    """What stands at "module:name".

    Raises:
        ValueError: no such address, or nothing can be called there.
    """
    module, _, name = address.partition(":")
    if not module or not name:
        raise ValueError(f"{address!r} is no address; write module:function")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{address!r} cannot be loaded ({error}); is its module on the path?") from error
    if not callable(found):
        raise ValueError(f"{address!r} is a {type(found).__name__}, no function; name the one that builds the agent")
    return found


def build(what: Entry, making: Making) -> Built:
    """The agent of an entry; what its builder raises is passed on.

    Raises:
        ValueError: the entry is not for this id.
    """
    if making.env_id not in what.ids:
        raise ValueError(f"agent {what.name!r} is for {', '.join(what.ids)}, not for {making.env_id}")
    made = find(what.build)(making, **what.options)
    return made if isinstance(made, Built) else Built(made)
