"""python -m docs.site.films [--ids ID ...]: the GIF of an episode for each environment's page, into docs/site/films.

They are committed, not made at every build: drawing them takes minutes, and they change only when an environment or its
picture does. Then this command makes them again, the same ones for the same seeds.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from PIL import Image

import clinenv  # noqa: F401  (registers the ids)
from agents.baselines.ward_rule import Clinician, StandardClinician
from agents.team.split_rule import RuleMember
from clinenv.envs.care_team.charts import own_chart
from clinenv.registration import TEAMS, make_team
from docs.site.environments import recorded_stays
from world_models.files import write_bytes

__all__ = ["FILMS", "Film"]

FOLDER = Path(__file__).parent / "films"
WIDTH = 760  # pixels: what a page shows at 1,400, and sharp enough to be read when a telephone zooms in
COLOURS = 96
MILLISECONDS = 700  # a frame; the last one stays four times as long


@dataclass(frozen=True)
class Film:
    """An episode: where, who, how long, and who decides."""

    seed: int
    steps: int  # at most
    every: int  # steps between frames
    decide: Callable[[Any, dict[str, Any], int], Any]  # environment, info, step -> action
    arguments: tuple[tuple[str, Any], ...] = ()
    options: tuple[tuple[str, float], ...] = ()


def _twice_a_day(env: Any, info: dict[str, Any], step: int) -> int:
    """Dofetilide 0.5 mg every 12 h."""
    return 4 if step % 6 == 0 else 0


def _two_drugs(env: Any, info: dict[str, Any], step: int) -> np.ndarray:
    """Verapamil 80 mg every 8 h with quinidine 200 mg."""
    return np.array([-1.0, -1.0, 0.66, 0.5] if step % 4 == 0 else [-1.0] * 4, np.float32)


def _switches(env: Any, info: dict[str, Any], step: int) -> np.ndarray:
    """The ward clinician's rule, at standard amounts."""
    return StandardClinician().switches(env.chart)[0].numpy()


def _clinic(env: Any, info: dict[str, Any], step: int) -> np.ndarray:
    """A beta-blocker, an ACE inhibitor, an anticoagulant and a statin, half-yearly visits."""
    action = np.zeros(15, np.int64)
    action[[5, 6, 8, 9, 14]] = 1, 1, 1, 1, 2
    return action


def _amounts(env: Any, info: dict[str, Any], step: int) -> np.ndarray:
    """The same rule in its own amounts."""
    return Clinician().act(env.chart)[0].numpy()


def _explained(env: Any, info: dict[str, Any], step: int) -> int:
    """What truly happened in between, one transition after the other, as only a judge knows it; then stop."""
    missing = info["true_transitions"].astype(int) - info["found_transitions"]
    codes = np.flatnonzero(missing)
    if not len(codes):
        return 0
    return int(codes[0] + 1 + (missing[codes[0]] < 0) * len(missing))


def _split_rule(env: Any, info: dict[str, Any], step: int) -> dict[str, np.ndarray]:
    """The clinician's rule by each of a team on his own chart, at standard amounts."""
    said = {role: RuleMember(role).act(own_chart(role, env.team.ward.chart)) for role in env.agents}
    return {role: env.team.episodes.codecs[role].encode(word)[0].numpy() for role, word in said.items()}


def _split_amounts(env: Any, info: dict[str, Any], step: int) -> dict[str, np.ndarray]:
    """The same in the rule's own amounts."""
    said = {role: RuleMember(role, False).act(own_chart(role, env.team.ward.chart)) for role in env.agents}
    return {role: env.team.episodes.codecs[role].encode(word)[0].numpy() for role, word in said.items()}


FILMS = {
    "ECGDrug-v0": Film(
        3, 24, 2, _twice_a_day, (("world", "oracle"),), (("baseline_qtcf_ms", 440.0), ("age_years", 68.0))
    ),
    "ECGDrugContinuous-v0": Film(5, 24, 2, _two_drugs, (("world", "oracle"),)),
    "EHRWard-v0": Film(11, 24, 2, _switches, (("world", "oracle"), ("cohort", "sepsis"))),
    "EHRWardDose-v0": Film(
        12, 24, 2, _amounts, (("world", "oracle"), ("cohort", "pneumonia"), ("action_unit", "units"))
    ),
    "EHRReplay-v0": Film(1, 12, 1, _switches, (("hour", 24),)),
    "ECGProgression-v0": Film(4, 20, 2, _clinic),
    "ECGExplain-v0": Film(2, 8, 1, _explained),
    "CareTeam-v0": Film(
        8, 24, 2, _split_rule, (("world", "oracle"),), (("age_years", 78.0), ("chronic_heart_failure", 1.0))
    ),
    "CareTeamDose-v0": Film(12, 24, 2, _split_amounts, (("world", "oracle"), ("cohort", "pneumonia"))),
}


def _frames(name: str, film: Film) -> Iterator[Image.Image]:
    """The pictures of the episode, one every so many steps, and the last."""
    with tempfile.TemporaryDirectory() as folder:
        stays = {"stays": str(recorded_stays(Path(folder)))} if name == "EHRReplay-v0" else {}
        team = any(row["id"] == name for row in TEAMS)
        make_one: Callable[..., Any] = make_team if team else gymnasium.make
        env = make_one(name, render_mode="rgb_array", **stays, **dict(film.arguments))
        _, info = env.reset(seed=film.seed, options=dict(film.options) or None)
        yield _picture(env.render())
        for step in range(film.steps):
            _, _, terminated, truncated, info = env.step(film.decide(env.unwrapped, info, step))
            ended = not env.agents if team else terminated or truncated
            over = ended or step + 1 == film.steps
            if over or (step + 1) % film.every == 0:
                yield _picture(env.render())
            if over:
                break
        env.close()


def _picture(pixels: Any) -> Image.Image:
    picture = Image.fromarray(np.asarray(pixels, np.uint8)).convert("RGB")
    return picture.resize((WIDTH, round(picture.height * WIDTH / picture.width)), Image.Resampling.LANCZOS)


def make(name: str) -> bytes:
    """The GIF of an environment's episode; all frames share the palette of the last, so it stays small."""
    frames = list(_frames(name, FILMS[name]))
    palette = frames[-1].quantize(COLOURS)
    drawn = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    durations = [MILLISECONDS] * (len(drawn) - 1) + [4 * MILLISECONDS]
    out = io.BytesIO()
    drawn[0].save(out, "GIF", save_all=True, append_images=drawn[1:], duration=durations, loop=0, optimize=True)
    return out.getvalue()


def main(argv: list[str] | None = None) -> int:
    """Write the films and print their sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ids", nargs="+", choices=tuple(FILMS), default=tuple(FILMS))
    FOLDER.mkdir(exist_ok=True)
    for name in parser.parse_args(argv).ids:
        film = make(name)
        write_bytes(FOLDER / f"{name}.gif", film)
        print(f"{name}: {len(film) / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
