"""`clinenv counterfactual` on a small world of known numbers: what it says is what the JEPA and the probe give."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clinenv.commands.main import main
from clinenv.rendering.ecg_strip import svg_strip
from clinenv.rendering.labels import NOT_FOR_CLINICAL_USE
from tests.clinenv.records import LEADS, drawn_ecg, write_record
from world_models import catalog, checkpoint, keys
from world_models.cardiac_jepa.config import JEPAConfig, WorldConfig, naive
from world_models.cardiac_jepa.model import KIND, CardiacJEPAWorld
from world_models.data.ecg.wfdb.reader import read_ecg
from world_models.quantities.progression import CODES
from world_models.quantity import DAYS_PER_MONTH

ROOT = Path(__file__).resolve().parents[2]
PLAIN = JEPAConfig(
    name="tiny-jepa", stem=(4, 4, 4), inner=4, out=16, blocks=(1, 1, 1, 1), projector=16, latent=12, embedding=8,
    action_hidden=16, dynamics_hidden=24, dynamics_blocks=1,
)  # fmt: skip
BANK, ECGS, PAIRS = 40, 8, 24
I48, I44, I10, I25 = (CODES.index(c) for c in ("I48", "I44", "I10", "I25"))


def _normal(what: str, *shape: int) -> torch.Tensor:
    return keys.normal(keys.from_seed(5), 0, what, shape)[0]


def _world(folder: Path, record: Path, ecgs: int = ECGS, plain: JEPAConfig = PLAIN) -> CardiacJEPAWorld:
    """A world of random weights, but for the probe.

    It reads I10 and I25 in the record, and I48 and I44 once I48 sets in. The first row of its bank is the record
    itself.
    """
    world = CardiacJEPAWorld(
        WorldConfig("tiny-jepa", plain.to_dict(), 8, bank=BANK, bank_ecgs=ecgs, pairs=PAIRS)
    ).eval()
    ecg = read_ecg(record, 100.0).ecg_mv[None]
    with torch.no_grad():
        outlet = world.jepa.dynamics.outlet[-1]
        outlet.weight.copy_(0.2 * _normal("outlet", *outlet.weight.shape))
        latent = world.reader.latents(ecg)
        action = torch.zeros(1, len(CODES))
        action[0, I48] = 1
        days = torch.tensor([6 * DAYS_PER_MONTH])
        still = world.jepa.predict(latent, torch.zeros_like(action), days)
        shift = world.jepa.predict(latent, action, days) - latent
        time = still - latent
        own = shift - (shift * time).sum() / time.square().sum() * time  # what the months alone do not do
        reader = world.reader
        reader.probe_weight.copy_(0.05 * _normal("probe", len(CODES), plain.latent))
        reader.probe_bias.fill_(-3.0)
        reader.probe_bias[[I10, I25]] = 3.0
        if plain.conditioning == "action":
            assert own.norm() > 1e-3, "the action moves the latent"
            for code in (I48, I44):  # logit -4 at the ECG's latent and after the months alone, 4 at the moved one
                reader.probe_weight[code] = 8 * own[0] / own.square().sum()
                reader.probe_bias[code] = -4 - reader.probe_weight[code] @ latent[0]
        world.reach.fill_(100.0)
        world.residual.copy_(0.1 * torch.eye(plain.latent))
        world.bank_latent.copy_(_normal("bank", BANK, plain.latent))
        world.bank_latent[0] = latent[0].half()
        world.bank_condition.copy_(_normal("conditions", BANK, len(CODES)) > 1)
        scale = 1 + 0.2 * _normal("size", ecgs).view(-1, 1, 1)
        world.bank_ecg.copy_(scale * ecg[:, :, :250])
        world.pair_before.copy_(_normal("pairs", PAIRS, plain.latent))
        world.pair_after.copy_(world.pair_before + 0.5 * _normal("moves", PAIRS, plain.latent))
        world.pair_days.copy_(torch.linspace(20, 700, PAIRS))
    card = "# tiny-jepa\n\nA world for tests.\n\n## Training data\n\nNone: <random> weights.\n"
    checkpoint.save_checkpoint(folder, world.state_dict(), {"kind": KIND, **world.config.to_dict()}, card)
    return world


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_record(tmp_path_factory.mktemp("records"))


@pytest.fixture(scope="module")
def folder(record: Path, tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(catalog.LOADERS, KIND, "world_models.cardiac_jepa.model:CardiacJEPAWorld.load")
        place = tmp_path_factory.mktemp("world")
        _world(place, record)
        yield place


def ask(record: Path, world: Path | str, out: Path, *more: str) -> int:
    files = ("--out", str(out / "report.html"), "--json", str(out / "numbers.json"))
    return main(["counterfactual", "--ecg", str(record), "--world", str(world), *files, *more])


def numbers(record: Path, world: Path, out: Path, *more: str) -> dict[str, Any]:
    assert ask(record, world, out, *more) == 0
    return json.loads((out / "numbers.json").read_text())


# ---- the numbers


def test_the_numbers_are_the_models(
    record: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = numbers(record, folder, tmp_path, "--onset", "i48.91", "--months", "6")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["numbers.json", "report.html"]
    world = CardiacJEPAWorld.load(folder)
    before = world.reader.latents(read_ecg(record, 100.0).ecg_mv[None])
    action = torch.zeros(1, len(CODES))
    action[0, I48] = 1
    days = torch.tensor([6 * DAYS_PER_MONTH])
    after = world.jepa.predict(before, action, days)
    without = world.jepa.predict(before, torch.zeros_like(action), days)
    for name, latent in (("before", before), ("after", after), ("without", without)):
        chance = world.reader.chances(latent)[0]
        for code, value in zip(CODES, chance.tolist(), strict=True):
            assert found["probe"][code][name] == pytest.approx(value, abs=2e-4), (code, name)
    assert found["latent_after"] == pytest.approx(after[0].tolist(), abs=2e-4)
    assert found["onset"] == ["I48"] and found["resolve"] == [] and found["months"] == 6
    assert found["present"] == ["I10", "I25"] and found["present_from"] == "probe"
    assert found["other_decisions_changed"] == ["I44"], "I48 itself was asked for, the others stay"
    assert found["probe"]["I48"]["after"] > 0.9 and found["probe"]["I48"]["without"] < 0.1
    assert found["distances"]["moved"] == pytest.approx(float((after - before).norm()), abs=2e-3)
    assert found["distances"]["by_the_transition"] == pytest.approx(float((after - without).norm()), abs=2e-3)
    apart = (world.pair_after.float() - world.pair_before.float()).norm(dim=1)
    assert found["distances"]["two_visits"] == pytest.approx(float(apart.median()), abs=2e-3)
    assert found["distances"]["not_foretold"] == pytest.approx(0.1 * PLAIN.latent**0.5, abs=2e-3)
    printed = capsys.readouterr().out
    assert re.search(r"I48 0\.02 -> 0\.98 .*sets in", printed) and "I44 0.02 -> 0.98" in printed
    assert "report.html" in printed and NOT_FOR_CLINICAL_USE in printed


def test_the_nearest_are_the_nearest_of_those_whose_ecg_is_stored(record: Path, folder: Path, tmp_path: Path) -> None:
    found = numbers(record, folder, tmp_path, "--onset", "I48", "--neighbours", "4")
    world = CardiacJEPAWorld.load(folder)
    stored = world.bank_latent[:ECGS].float()
    assert found["stored_ecgs"] == ECGS
    for which in ("before", "after"):
        far = (stored - torch.tensor(found[f"latent_{which}"])).norm(dim=1)
        near = found[f"nearest_{which}"]
        assert [n["row"] for n in near] == far.argsort()[:4].tolist()
        assert [n["distance"] for n in near] == pytest.approx(far.sort().values[:4].tolist(), abs=1e-3)
        held = world.bank_condition[near[0]["row"]].tolist()
        assert near[0]["conditions"] == [c for c, has in zip(CODES, held, strict=True) if has]
    assert found["nearest_before"][0]["row"] == 0 and found["nearest_before"][0]["distance"] < 0.02


def test_months_and_present_are_used(record: Path, folder: Path, tmp_path: Path) -> None:
    short = numbers(record, folder, tmp_path, "--onset", "I48", "--months", "1")
    long = numbers(record, folder, tmp_path, "--onset", "I48", "--months", "20")
    assert short["latent_before"] == long["latent_before"] and short["latent_after"] != long["latent_after"]
    given = numbers(record, folder, tmp_path, "--present", "I48", "I50", "--resolve", "I48", "--onset", "I10")
    assert given["present"] == ["I48", "I50"] and given["present_from"] == "given"
    assert given["onset"] == ["I10"] and given["resolve"] == ["I48"]
    assert any("I10" in w and "already" in w for w in given["warnings"]), "the probe reads I10 before its onset"
    assert numbers(record, folder, tmp_path, "--present", "--onset", "I10")["present"] == []
    healed = numbers(record, folder, tmp_path, "--present", "I21", "I25", "--resolve", "I21")
    assert healed["resolve"] == ["I21"]


def test_what_lies_far_off_is_said_to(record: Path, folder: Path, tmp_path: Path) -> None:
    assert numbers(record, folder, tmp_path, "--onset", "I48")["supported"] is True
    for i, (change, words) in enumerate(
        ((lambda w: w.reach.fill_(1e-3), "longer"), (lambda w: w.bank_latent.mul_(1e-3), "away from the moved"))
    ):
        place = tmp_path / str(i)
        world = _world(place, record)
        change(world)
        checkpoint.save_checkpoint(place, world.state_dict(), {"kind": KIND, **world.config.to_dict()}, "# far\n\nx\n")
        found = numbers(record, place, tmp_path, "--onset", "I48")
        assert found["supported"] is False and words in found["support"]
        assert any("extrapolation" in w for w in found["warnings"])
        assert "Out of support" in (tmp_path / "report.html").read_text()


def test_a_world_that_stores_no_ecgs_lists_its_neighbours(record: Path, folder: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    _world(bare, record, ecgs=0)
    found = numbers(record, bare, tmp_path, "--onset", "I48")
    assert found["stored_ecgs"] == BANK and len(found["nearest_after"]) == 3
    assert any("no ECGs" in w for w in found["warnings"])
    html = (tmp_path / "report.html").read_text()
    assert html.count('class="paper"') == 1 and f"Stored ECG {found['nearest_after'][0]['row']}" in html


def test_the_same_question_gives_the_same_page(record: Path, folder: Path, tmp_path: Path) -> None:
    pages = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        assert ask(record, folder, tmp_path / name, "--onset", "I48") == 0
        pages.append((tmp_path / name / "report.html").read_text())
    assert pages[0] == pages[1]


# ---- the page


class _Tags(HTMLParser):
    """Opened and closed tags, and everything that would be fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.fetched += [v or "" for k, v in attrs if k in ("src", "href", "data", "xlink:href")]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_stands_alone_and_says_what_it_must(record: Path, folder: Path, tmp_path: Path) -> None:
    found = numbers(record, folder, tmp_path, "--onset", "I48", "I50", "--neighbours", "2")
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    tags = _Tags()
    tags.feed(html)
    assert not tags.open and not tags.fetched and not {"script", "link", "img", "iframe", "object"} & tags.seen
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", html) and "@import" not in html
    ids = re.findall(r'\bid="([^"]*)"', html)
    assert len(ids) == len(set(ids)) and all(t.startswith("#") for t in re.findall(r"url\(([^)]*)\)", html))
    assert len(html.encode()) < 2_000_000 and html.count('class="paper"') == 5
    said = (
        "If I48 and I50 set in",
        "No waveform is generated",
        "no prediction for this person",
        "other patients",
        "read by the probe",
        "None: &lt;random&gt; weights",
        "prefers-color-scheme:dark",
        "atrial fibrillation and flutter",
        f"{found['distances']['moved']:.2f}",
        "read now",
        "In support",
        checkpoint.sha256(folder),
    )
    for words in said:
        assert words in html, words
    assert html.count(NOT_FOR_CLINICAL_USE) >= 6 and "<random>" not in html
    assert "nan" not in re.sub(r"<style>.*?</style>", "", html).lower()


def test_a_strip_holds_every_sample_and_leaves_gaps(record: Path) -> None:
    ecg = drawn_ecg(2.5, 100.0)
    whole = svg_strip(ecg, 100.0, "a < b", "s")
    path = re.search(r'scale\(\.01\)" d="([^"]*)"', whole)
    assert path is not None and path.group(1).count("M") == len(LEADS) and "a &lt; b" in whole
    ecg[3, 100:120] = np.nan
    ecg[5] = np.nan
    gaps = re.search(r'scale\(\.01\)" d="([^"]*)"', svg_strip(ecg, 100.0))
    assert gaps is not None and gaps.group(1).count("M") == len(LEADS)  # one lead in two pieces, one gone
    for bad, hz in ((ecg[:8], 100.0), (ecg[:, :1], 100.0), (ecg, 0.0)):
        with pytest.raises(ValueError):
            svg_strip(bad, hz)


# ---- bad input: one line, exit code 2, nothing written


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ((), ("--onset", "--resolve")),
        (("--onset", "Z99"), ("--onset Z99", "I48 atrial fibrillation and flutter")),
        (("--onset", "I71"), ("--onset I71", "I70", "I82 venous thrombosis")),
        (("--present", "flu", "--onset", "I48"), ("--present flu", "I10 essential hypertension")),
        (("--onset", "I10"), ("--onset I10", "already", "the probe reads", "I10 I25")),
        (("--present", "I48", "--onset", "I48.1"), ("--onset I48.1", "already", "--present says (I48)")),
        (("--resolve", "I48"), ("--resolve I48", "does not have it", "--present")),
        (("--resolve", "I25"), ("--resolve I25", "irreversible")),
        (("--present", "I21", "--resolve", "I21"), ("--resolve I21", "I25")),
        (("--present", "--resolve", "I48"), ("none of the codes",)),
        (("--onset", "I48", "--resolve", "I48"), ("I48", "at once")),
        (("--onset", "I48", "--months", "25"), ("--months 25", "0 to 24")),
        (("--onset", "I48", "--months", "-1"), ("--months -1",)),
        (("--onset", "I48", "--months", "nan"), ("--months nan",)),
        (("--onset", "I48", "--neighbours", "0"), ("--neighbours 0", "1 to 12")),
        (("--onset", "I48", "--world", "nowhere"), ("--world nowhere", "catalogue")),
        (("--onset", "I48", "--world", "oracle"), ("--world oracle", "cardiac-jepa-small")),
    ],
)
def test_a_bad_argument_is_refused(
    more: tuple[str, ...],
    words: tuple[str, ...],
    record: Path,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert ask(record, folder, tmp_path, *more) == 2
    error = capsys.readouterr().err
    assert error.startswith("clinenv: error: ") and error.count("\n") == 1, error
    assert all(word in error for word in words), error
    assert not list(tmp_path.iterdir())


def test_a_bad_record_or_folder_is_refused(
    record: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    few = write_record(tmp_path, "few", order=LEADS[:8])
    for bad, words in (
        (few, "V3"),
        (tmp_path / "none", "none.hea"),
        (write_record(tmp_path, "s", drawn_ecg(2.0)), "2.0 s"),
    ):
        assert ask(bad, folder, out, "--onset", "I48") == 2
        assert words in capsys.readouterr().err
    for flag in ("--out", "--json"):
        assert ask(record, folder, out, "--onset", "I48", flag, str(out / "nowhere" / "f")) == 2
        assert "nowhere" in capsys.readouterr().err
    assert ask(record, folder, out, "--onset", "I48", "--json", str(out / "report.html")) == 2
    assert "two files" in capsys.readouterr().err
    assert not list(out.iterdir())


@pytest.mark.parametrize("kind", ["no unit", "hum", "noise", "no rate"])
def test_an_ecg_on_which_nothing_can_be_measured_is_refused(
    kind: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hum = np.tile(np.sin(2 * np.pi * 50 * np.arange(5000) / 500), (12, 1))
    noise = np.random.default_rng(0).normal(0, 0.5, (12, 5000))
    bad = write_record(tmp_path, ecg_mv={"hum": hum, "noise": noise}.get(kind))
    header = bad.with_suffix(".hea")
    if kind == "no unit":
        header.write_text(re.sub(r"1000(\.0)?\(0\)/mV", "1(0)", header.read_text()))
    elif kind == "no rate":
        header.write_text(header.read_text().replace("rec 12 500 5000", "rec 12"))
    out = tmp_path / "out"
    out.mkdir()
    assert ask(bad, folder, out, "--onset", "I48") == 2
    error = capsys.readouterr().err
    words = {"no unit": "check gain and unit", "no rate": "--rate-hz"}.get(kind, "nothing on it can be measured")
    assert error.startswith("clinenv: error: ") and error.count("\n") == 1 and words in error, error
    assert not list(out.iterdir())
    if kind == "no rate":
        assert ask(bad, folder, out, "--onset", "I48", "--rate-hz", "500") == 0


def test_a_world_that_was_told_no_diagnoses_is_refused(
    record: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _world(tmp_path / "naive", record, plain=naive(PLAIN))
    assert ask(record, tmp_path / "naive", tmp_path, "--onset", "I48") == 2
    assert "without diagnoses" in capsys.readouterr().err and not list(tmp_path.glob("*.html"))


# ---- the other commands


def test_simulate_refuses_a_world_that_draws_no_ecg(
    record: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    who = ("--age", "61", "--sex", "F", "--dose-mg", "1", "--out", str(tmp_path / "r.html"), "--world", str(folder))
    for drug in ("dofetilide", "diuretic"):
        assert main(["simulate", "--ecg", str(record), "--drug", drug, *who]) == 2
        error = capsys.readouterr().err
        assert error.startswith("clinenv: error: ") and "no ecg_mv" in error and "take ecg-wm-small" in error
    assert not list(tmp_path.iterdir())
    assert main(["worlds"]) == 0


@pytest.mark.slow
def test_the_command_line_to_make_the_page_again_is_on_it(record: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom clinenv.commands.main import main\nfrom world_models import catalog\n"
        f"catalog.LOADERS[{KIND!r}] = 'world_models.cardiac_jepa.model:CardiacJEPAWorld.load'\n"
        "raise SystemExit(main())"
    )
    _world(tmp_path / "w", record)
    words = ["counterfactual", "--ecg", str(record), "--onset", "I48", "--world", str(tmp_path / "w")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert f"clinenv counterfactual --ecg {record} --onset I48" in (tmp_path / "report.html").read_text()
