"""The metadata of a log for machines: Croissant 1.1 (JSON-LD, https://docs.mlcommons.org/croissant), made of its sheet.

Three record sets lie in the HDF5 file as its arrays: steps, visits (one more than steps in each stay), and stays.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agents.offline.logged import Logged
from world_models.files import write_text

__all__ = ["CONFORMS_TO", "croissant_of", "path_of", "write_croissant"]

CONFORMS_TO = "http://mlcommons.org/croissant/1.1"
LICENCE = "https://www.apache.org/licenses/LICENSE-2.0"
_HDF5 = "application/x-hdf5"
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "annotation": "cr:annotation",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataBiases": "cr:dataBiases",
    "dataCollection": "cr:dataCollection",
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "personalSensitiveInformation": "cr:personalSensitiveInformation",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
    "unArchive": "cr:unArchive",
    "value": "cr:value",
}
_STEPS = {
    "reward": ("sc:Float", "of the step"),
    "cost": ("sc:Float", "safety cost of the step"),
    "log_prob": ("sc:Float", "of the choice, in nats, given all that the behaviour saw"),
    "nominal_log_prob": ("sc:Float", "of the choice, in nats, with the dial of confounding at 0"),
    "terminated": ("sc:Boolean", "the episode ended by itself"),
    "truncated": ("sc:Boolean", "the episode was cut at its longest"),
}
_STAYS = {
    "seed": ("sc:Integer", "of the patient, as for the environment's reset"),
    "length": ("sc:Integer", "steps of the stay; the arrays of steps hold them one after the other"),
    "hidden_severity": ("sc:Float", "rank at admission in (0, 1), in no observation; for judging only"),
}


def croissant_of(logged: Logged, sheet: Mapping[str, Any], version: str) -> dict[str, Any]:
    """The metadata of a log as JSON-LD.

    Args:
        sheet: of this log (`agents.offline.sheet.sheet_of`).
        version: of clinenv, by which it was made. When it is published, nobody knows yet (`agents.publish` adds it).
    """
    about = sheet["about"]
    name = Path(sheet["file"]).stem
    seal = about["weights_sha256"] or "it has no weights"
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": name,
        "description": (
            f"Logged courses of {about['patients']:,} simulated patients in {about['env_id']} (world {about['world']}: "
            f"{seal}) under a known behaviour, with the chance of every decision: {about['behaviour']}. "
            f"{sheet['note']}"
        ),
        "license": LICENCE,
        "url": sheet["file"],
        "version": version,
        "creator": {"@type": "sc:Organization", "name": "The clinenv authors"},
        "citeAs": "The clinenv authors: clinenv, clinical decision environments on world models; see CITATION.cff",
        "keywords": ["offline reinforcement learning", "off-policy evaluation", "simulated patients", about["env_id"]],
        "isLiveDataset": False,
        "rai:dataCollection": f"Simulated by `{sheet['command']}`; no person's data.",
        "rai:dataBiases": f"Dial of confounding {about['confounding']:g}: at 0 the behaviour reads the chart alone.",
        "rai:personalSensitiveInformation": "None: the patients are simulated.",
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": sheet["file"],
                "name": sheet["file"],
                "contentUrl": sheet["file"],
                "contentSize": f"{sheet['bytes']} B",
                "encodingFormat": _HDF5,
                "sha256": sheet["sha256"],
            }
        ],
        "recordSet": _record_sets(logged, sheet["file"]),
    }


def _record_sets(logged: Logged, file: str) -> list[dict[str, Any]]:
    about = logged.about
    terms = {f"term_{name}": ("sc:Float", f"of the reward: {name}") for name in sorted(logged.terms)}
    steps = [_field("steps", file, name, *told) for name, told in (_STEPS | terms).items()]
    kind = "sc:Float" if logged.choice.is_floating_point() else "sc:Integer"
    said = f"the action, {about.action_kind}"
    steps.append(_field("steps", file, "choice", kind, said, logged.choice.shape[-1]))
    columns = zip(about.observation_names, about.observation_units, strict=True)
    said = "as the environment shows it: " + ", ".join(f"{name} [{unit}]" for name, unit in columns)
    visits = [_field("visits", file, "observation", "sc:Float", said, logged.observation.shape[-1])]
    if logged.mask is not None:
        said = "which entries of the action the chart allows"
        visits.append(_field("visits", file, "mask", "sc:Integer", said, logged.mask.shape[-1]))
    stays = [_field("stays", file, name, *told) for name, told in _STAYS.items()]
    parts = {
        "steps": (steps, "One row a step, the stays one after the other."),
        "visits": (visits, "One row a visit: of each stay one more than it has steps."),
        "stays": (stays, "One row a patient."),
    }
    return [
        {"@type": "cr:RecordSet", "@id": name, "name": name, "description": said, "field": fields}
        for name, (fields, said) in parts.items()
    ]


def _field(of: str, file: str, name: str, kind: str, said: str, width: int | None = None) -> dict[str, Any]:
    """One array of the file; `width`: numbers in a row, where a row is more than one."""
    found: dict[str, Any] = {
        "@type": "cr:Field",
        "@id": f"{of}/{name}",
        "name": name,
        "description": said,
        "dataType": kind,
        "source": {"fileObject": {"@id": file}, "extract": {"column": name}},
    }
    return found if width is None else found | {"isArray": True, "arrayShape": str(width)}


def path_of(log: Path) -> Path:
    """Where the metadata of a log lie: NAME.croissant.json."""
    return log.with_name(f"{log.stem}.croissant.json")


def write_croissant(metadata: Mapping[str, Any], log: Path) -> None:
    """The metadata beside their log."""
    write_text(path_of(log), json.dumps(metadata, indent=1, ensure_ascii=False) + "\n")
