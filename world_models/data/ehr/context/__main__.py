"""Discharge summaries to static contexts.

    python -m world_models.data.ehr.context NOTES --out CONTEXT.jsonl [--endpoint URL --model NAME]

NOTES is MIMIC-IV-Note's table `discharge` (csv, csv.gz or parquet with subject_id, hadm_id and text) or a folder of
.txt files named SUBJECT_HADM.txt. Without --endpoint the rules read them; with one a model does, and the rules where it
gives nothing usable. A line of JSON a note: what was found, who spoke, how often an answer was refused and why. Until
all are read the file is CONTEXT.jsonl.part; a run that was stopped goes on from there when its command is given again.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys

from world_models.command_line import number, whole
from world_models.data.ehr.context.model import MOST_ATTEMPTS, MOST_TOKENS, endpoint
from world_models.data.ehr.context.read_all import read_all
from world_models.ehr_world.causal_lm.client import LLMClient

__all__ = ["main"]

BATCHES = 4  # notes between two writes, as a multiple of the requests at a time


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m world_models.data.ehr.context",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("notes", help="table of notes (csv, csv.gz, parquet), or folder of .txt")
    parser.add_argument("--out", required=True, help="file to make: a line of JSON a note")
    parser.add_argument("--endpoint", metavar="URL", help="OpenAI-compatible server, http://localhost:8000/v1")
    parser.add_argument("--model", metavar="NAME", help="the name it is served under")
    parser.add_argument("--api-key-env", metavar="VARIABLE", help="environment variable that holds the API key")
    parser.add_argument("--concurrency", type=whole(1, 10_000), default=16, help="requests at a time (default 16)")
    parser.add_argument(
        "--timeout", type=number(0, 86_400, above=True), default=300.0, help="seconds an answer may take"
    )
    parser.add_argument("--retries", type=whole(0, 1_000), default=5, help="of a request that failed (default 5)")
    parser.add_argument("--attempts", type=whole(1, 20), default=MOST_ATTEMPTS, help="answers asked for, a note")
    parser.add_argument("--max-tokens", type=whole(16, 1 << 20), default=MOST_TOKENS, help="of an answer")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def _client(given: argparse.Namespace) -> LLMClient | None:
    """The server asked for. Raises ValueError: half of what names one, or an address that is none."""
    if given.endpoint is None:
        if given.model is not None or given.api_key_env is not None:
            raise ValueError("--model and --api-key-env belong to a server: give --endpoint too, or neither")
        return None
    if given.model is None:
        raise ValueError(f"--endpoint {given.endpoint} serves models by name: give --model too")
    key = None
    if given.api_key_env is not None:
        key = os.environ.get(given.api_key_env)
        if not key:
            raise ValueError(f"the environment has no {given.api_key_env}; set it to the API key")
    return LLMClient(
        given.endpoint, given.model, key, given.concurrency, timeout_s=given.timeout, retries=given.retries
    )


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    given = _parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s")
    try:
        client = _client(given)
        counts = read_all(
            given.notes,
            given.out,
            None if client is None else endpoint(client, given.max_tokens),
            "rules" if client is None else f"model {client.model}, {given.attempts} attempts",
            given.attempts,
            BATCHES * given.concurrency,
            given.quiet,
        )
    except ImportError as error:
        print(
            f'error: a table of notes needs DuckDB and pyarrow ({error}): pip install "clinenv[ehr]"', file=sys.stderr
        )
        return 2
    except (ValueError, OSError) as error:  # EhrDataError is a ValueError
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"stopped; {given.out}.part keeps what was read: the same command goes on from there", file=sys.stderr)
        return 130
    print("; ".join(f"{what}: {count}" for what, count in counts.items()), f"-> {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
