"""The progression oracle's ECGs: a stable person, the conditions' signs measured on the drawn leads, and rows alone."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
import torch
from scipy.signal import find_peaks

from world_models import keys
from world_models.ecg.lead_names import LEADS
from world_models.oracles.progression.ecg.anatomy import at_visit, sample_anatomy
from world_models.oracles.progression.ecg.rhythm import is_paced
from world_models.oracles.progression.ecg.shown import FORMS, VISIBLE, shown_on_ecg
from world_models.oracles.progression.ecg.signs import apply_signs
from world_models.oracles.progression.ecg.synthesis import synthesise_progression_ecg
from world_models.quantities.progression import CODES, TREATMENTS

HZ = 100.0
LEAD = {name: i for i, name in enumerate(LEADS)}
BEFORE, AFTER = 30, 50  # samples of a median beat around R


def patients(count, codes=(), treatments=(), seed=3, t=0, age=60.0):
    """key, t, condition, age, sex, treated of patients who all have the same conditions and treatments."""
    key = keys.from_seed(seed * 100_000, count)
    condition = torch.zeros(count, len(CODES), dtype=torch.bool)
    condition[:, [CODES.index(c) for c in codes]] = True
    treated = torch.zeros(count, len(TREATMENTS), dtype=torch.bool)
    treated[:, [TREATMENTS.index(x) for x in treatments]] = True
    when = torch.full((count,), t, dtype=torch.int64)
    return key, when, condition, torch.full((count,), age), keys.uniform(key, 0, "test/sex").round(), treated


def rows(case, index):
    return tuple(x[index] for x in case)


def draw(case):
    return synthesise_progression_ecg(*case)


def seen(case, code, form=None, group=None):
    """Rows in which the condition shows, in this form."""
    shown = shown_on_ecg(*case[:3])
    chosen = shown.sees(code)
    if form is not None:
        chosen &= shown.is_form(group or code, form)
    return torch.nonzero(chosen).squeeze(-1)


def r_peaks(ecg):
    speed = np.convolve(np.abs(np.diff(ecg[[0, 1, 6, 7, 8, 9, 10, 11]], axis=1)).sum(0), np.ones(5), "same")
    return find_peaks(speed, height=0.4 * np.quantile(speed, 0.985), distance=20)[0]


def median_beat(ecg, at):
    at = at[(at >= BEFORE) & (at < ecg.shape[1] - AFTER)]
    beats = np.stack([ecg[:, i - BEFORE : i + AFTER] for i in at])
    beat = np.median(beats, axis=0)
    return beat - np.median(beat[:, 17:23], axis=1, keepdims=True)  # the level 70 to 130 ms before R


def rr_variation(at):
    rr = np.diff(at)
    return float(np.median(np.abs(np.diff(rr))) / np.median(rr)) if len(rr) > 2 else 0.0


def qrs_ms(beat):
    """The stretch about R in which the summed speed of eight leads stays above a tenth of its peak (gaps of 20 ms)."""
    speed = np.abs(np.diff(beat[[0, 1, 6, 7, 8, 9, 10, 11]], axis=1)).sum(0)
    fast = np.flatnonzero(speed > 0.1 * speed[15:50].max())
    groups = np.split(fast, np.flatnonzero(np.diff(fast) > 3) + 1)
    group = min(groups, key=lambda g: np.abs(g - BEFORE).min())
    return float(group[-1] - group[0] + 1) * 1000.0 / HZ


@lru_cache(maxsize=8)
def features(code, treatments=(), count=200, seed=3):
    """[count, F]: rate, irregularity, QRS width, the median beat at 12 points in eight leads, P before R."""
    found = []
    for ecg in draw(patients(count, (code,) if code else (), treatments, seed=seed)).numpy():
        at = r_peaks(ecg)
        beat = median_beat(ecg, at)
        independent = beat[[0, 1, 6, 7, 8, 9, 10, 11]]
        p = independent[:, 2:22]
        points = independent[:, [8, 14, 20, 26, 28, 30, 32, 34, 38, 44, 48]]
        rr = np.diff(at)
        spread = np.abs(rr - np.median(rr)).max() / np.median(rr) if len(rr) else 0.0
        scalars = [np.median(rr) / HZ if len(rr) else 2.0, rr_variation(at), spread, qrs_ms(beat) / 100.0]
        found.append(np.concatenate((scalars, np.ptp(p, axis=1), points.ravel())))
    return np.stack(found)


def auroc(score, label):
    order = np.argsort(np.argsort(score, kind="stable"), kind="stable") + 1.0
    positive = label > 0
    n, m = positive.sum(), (~positive).sum()
    return float((order[positive].sum() - n * (n + 1) / 2) / (n * m))


def separation(code, only_shown=False):
    """AUROC of a ridge classifier between patients with one condition and with none, fitted on other patients."""
    sick = features(code, seed=4)
    if only_shown:
        sick = sick[seen(patients(len(sick), (code,), seed=4), code).numpy()]
    healthy = features(None)
    x = np.concatenate((healthy, sick))
    y = np.repeat((-1.0, 1.0), (len(healthy), len(sick)))
    fit = np.arange(len(x)) % 2 == 0
    mean, sd = x[fit].mean(0), x[fit].std(0) + 1e-3
    z = np.c_[(x - mean) / sd, np.ones(len(x))]
    weights = np.linalg.solve(z[fit].T @ z[fit] + 20.0 * np.eye(z.shape[1]), z[fit].T @ y[fit])
    return auroc((z @ weights)[~fit], y[~fit])


@pytest.fixture(scope="module")
def mixed():
    key, t, condition, _, sex, treated = patients(160, seed=7)
    chance = keys.uniform(key, 0, "test/condition", (len(CODES),))
    drugs = keys.uniform(key, 0, "test/treated", (len(TREATMENTS),)) < 0.3
    age = 20.0 + 75.0 * keys.uniform(key, 0, "test/age")
    return key, torch.arange(160) % 7, chance < 0.2, age, sex, drugs


def test_any_mixture_is_finite_and_of_a_size_that_hearts_have(mixed):
    ecg = draw(mixed)
    assert ecg.shape == (160, 12, 1000) and ecg.dtype == torch.float32
    assert ecg.isfinite().all() and ecg.abs().max() < 8.0
    assert (ecg.amax(2) - ecg.amin(2)).amax(1).min() > 0.3


def test_a_row_alone_gives_the_same_bits(mixed):
    ecg = draw(mixed)
    for row in (0, 1, 77, 127, 128, 159):
        assert torch.equal(draw(rows(mixed, slice(row, row + 1)))[0], ecg[row])
    turned = torch.arange(159, -1, -1)
    assert torch.equal(draw(rows(mixed, turned)), ecg[turned])


def test_all_conditions_at_once_and_no_patient():
    assert draw(patients(20, CODES)).isfinite().all()
    assert draw(patients(20, CODES, TREATMENTS)).isfinite().all()
    assert draw(patients(0)).shape == (0, 12, 1000)


def test_einthoven_and_goldberger(mixed):
    ecg = draw(mixed)
    lead = {name: ecg[:, i] for name, i in LEAD.items()}
    assert (lead["II"] - lead["I"] - lead["III"]).abs().max() < 2e-6
    assert (lead["aVR"] + lead["aVL"] + lead["aVF"]).abs().max() < 4e-6


def test_a_person_looks_like_himself_at_every_visit():
    beats = []
    for t in (0, 1):
        ecg = draw(patients(60, t=t)).numpy()
        beats.append([median_beat(x, r_peaks(x)).ravel() for x in ecg])
    both = np.corrcoef(np.array(beats[0]), np.array(beats[1]))[:60, 60:]
    own, others = np.diag(both), both[~np.eye(60, dtype=bool)]
    assert np.median(own) > 0.97
    # Nearly everyone is nearer to himself than to any other.
    assert (both.argmax(1) == np.arange(60)).mean() > 0.85
    assert np.quantile(own, 0.1) > np.quantile(others, 0.9)


def test_the_day_changes_the_ecg_and_the_key_the_person():
    first, second = draw(patients(8)), draw(patients(8, t=1))
    assert (first - second).abs().amax((1, 2)).min() > 0.1
    assert not torch.equal(first[0], first[1])


def test_fibrillation_is_irregular_and_has_no_p():
    case = patients(200, ["I48"])
    af = rows(case, seen(case, "I48", "fibrillation"))
    healthy = patients(len(af[0]), seed=9)
    irregular, p_size = {}, {}
    for name, chosen in (("af", af), ("healthy", healthy)):
        ecg = draw(chosen).numpy()
        at = [r_peaks(x) for x in ecg]
        irregular[name] = np.array([rr_variation(a) for a in at])
        # In II and V5, where f waves are small: what is common to all beats 220 to 60 ms before R.
        p = [median_beat(x, a)[[1, 10], 5:23] for x, a in zip(ecg, at, strict=True)]
        p_size[name] = np.array([np.ptp(x, axis=1).mean() for x in p])
    assert np.quantile(irregular["af"], 0.05) > np.quantile(irregular["healthy"], 0.95)
    assert np.median(p_size["af"]) < 0.75 * np.median(p_size["healthy"])


def test_left_bundle_branch_block_is_wide():
    case = patients(200, ["I44"])
    lbbb = rows(case, seen(case, "I44", "lbbb"))
    widths = [qrs_ms(median_beat(x, r_peaks(x))) for x in draw(lbbb).numpy()]
    normal = [qrs_ms(median_beat(x, r_peaks(x))) for x in draw(patients(60)).numpy()]
    assert np.quantile(widths, 0.05) >= 120.0 > max(normal)


@pytest.mark.parametrize(
    ("form", "leads"), [("anterior", ("V2", "V3")), ("inferior", ("III", "aVF")), ("lateral", ("V5", "V6"))]
)
def test_an_infarction_raises_st_and_leaves_its_scar_in_one_territory(form, leads):
    case = patients(400, ["I21"])
    both = torch.tensor(np.intersect1d(seen(case, "I21", "st_elevation"), seen(case, "I21", form, "territory")))
    acute, before = rows(case, both), rows(patients(400), both)
    at = [LEAD[x] for x in leads]

    def measure(chosen):
        beats = np.stack([median_beat(x, r_peaks(x)) for x in draw(chosen).numpy()])
        return np.median(beats[:, at, 38:41].mean(2), axis=0), beats[:, at]

    st_acute, _ = measure(acute)
    st_before, _ = measure(before)
    assert (st_acute > st_before + 0.08).all()

    case = patients(400, ["I25"])
    old = seen(case, "I25", form, "territory")
    _, scar = measure(rows(case, old))
    _, sound = measure(rows(patients(400), old))
    # Lower in the first half of the QRS (Q) and T turned down.
    assert np.median(scar[:, :, 24:31].min(2).mean(1) - sound[:, :, 24:31].min(2).mean(1)) < -0.05
    assert np.median(scar[:, :, 44:].mean((1, 2)) - sound[:, :, 44:].mean((1, 2))) < -0.02
    # The same people: where the infarction was is where the scar is.
    acute_shown, old_shown = shown_on_ecg(*patients(400, ["I21"])[:3]), shown_on_ecg(*patients(400, ["I25"], t=5)[:3])
    assert torch.equal(acute_shown.forms["territory"], old_shown.forms["territory"])


def test_a_pacemaker_ends_the_slow_rhythm_of_complete_block():
    case = patients(300, ["I44"])
    chosen = seen(case, "I44", "third_degree")
    slow = [np.median(np.diff(r_peaks(x))) for x in draw(rows(case, chosen)).numpy()]
    paced = draw(rows(patients(300, ["I44"], ["pacemaker"]), chosen)).numpy()
    # The stimulus is narrower than any wave: the sharpest turn on the paper.
    turns = [np.abs(np.diff(x[LEAD["II"]], n=2)).max() for x in paced]
    without = [np.abs(np.diff(x[LEAD["II"]], n=2)).max() for x in draw(rows(case, chosen)).numpy()]
    fast = [np.median(np.diff(r_peaks(x))) for x in paced]
    assert min(slow) > 105 and np.median(slow) > 130
    assert max(fast) < 105
    assert np.median(turns) > 2.0 * np.median(without)


def test_resynchronisation_paces_always_and_narrows_a_left_block():
    case = patients(300, ["I44", "I42"])
    chosen = seen(case, "I44", "lbbb")

    def beats(treatments):
        theirs = rows(patients(300, ["I44", "I42"], treatments), chosen)
        drawn, shown = draw(theirs).numpy(), shown_on_ecg(*theirs[:3])
        drugs = {name: theirs[5][:, i].float() for i, name in enumerate(TREATMENTS)}
        heart = at_visit(theirs[0], theirs[1], sample_anatomy(theirs[0], theirs[3], theirs[4]))
        signs = apply_signs(heart, shown, drugs, is_paced(shown, drugs))
        return drawn, [median_beat(x, r_peaks(x)) for x in drawn], signs.qrs_ms

    own, both, right = beats(()), beats(("crt",)), beats(("pacemaker",))
    narrower = own[2] - both[2]
    assert 12.0 < float(narrower.mean()) < 30.0 and float(both[2].mean()) > 120.0
    assert np.array_equal(right[0], own[0]), "a pacemaker waits for a block of high degree"
    # a left block points to the left (I up); from both ventricles it points away from it
    assert np.median([np.trapezoid(b[0, 22:42]) for b in own[1]]) > 0
    assert np.median([np.trapezoid(b[0, 22:42]) for b in both[1]]) < 0
    # always: in fibrillation too the ventricles beat regularly
    irregular, paced = (patients(60, ["I48"], x) for x in ((), ("crt",)))
    shows = seen(irregular, "I48", "fibrillation")
    jitter = [np.median([rr_variation(r_peaks(e)) for e in draw(rows(c, shows)).numpy()]) for c in (irregular, paced)]
    assert jitter[1] < 0.03 < 0.08 < jitter[0]


def test_a_defibrillator_paces_a_block_of_high_degree_and_else_shows_nothing():
    case = patients(300, ["I44"])
    chosen = seen(case, "I44", "third_degree")
    one, other = (draw(rows(patients(300, ["I44"], [x]), chosen)) for x in ("pacemaker", "icd"))
    assert torch.equal(one, other)
    assert torch.equal(draw(patients(40, ["I50"], ["icd"])), draw(patients(40, ["I50"])))


def test_a_new_valve_relieves_the_strain():
    case = patients(200, ["I35"])
    chosen = seen(case, "I35", "stenosis")
    before, after = (draw(rows(patients(200, ["I35"], x), chosen)).numpy() for x in ((), ("valve_replacement",)))
    size = [np.ptp(x[:, LEAD["V5"]], axis=1).mean() for x in (before, after)]
    assert size[1] < 0.95 * size[0]


def test_beta_blockers_slow_and_antiarrhythmics_lengthen_qt():
    def rate(treatments, codes=()):
        ecg = draw(patients(60, codes, treatments)).numpy()
        return np.median([60.0 * HZ / np.median(np.diff(r_peaks(x))) for x in ecg])

    assert rate(("beta_blocker",)) < rate(()) - 4.0
    assert rate(("beta_blocker",), ("I48",)) < rate((), ("I48",)) - 4.0
    assert rate(("anticoagulant", "ace_inhibitor", "diuretic", "statin", "sglt2_inhibitor")) == rate(())


def test_low_voltage_of_an_effusion():
    case = patients(80, ["I31"])
    chosen = seen(case, "I31")
    size = [np.ptp(draw(rows(c, chosen)).numpy()[:, 1], axis=1).mean() for c in (case, patients(80))]
    assert size[0] < 0.75 * size[1]


def test_what_can_be_seen_is_seen_and_what_cannot_is_not():
    assert separation("I48", only_shown=True) > 0.95
    assert separation("I48") > 0.84  # a fifth are in sinus rhythm on the day: 0.9 is all that rhythm can give
    assert separation("I44") > 0.9
    for hidden in ("I73", "I82"):
        assert 0.35 < separation(hidden) < 0.65


def test_the_share_of_ecgs_that_show_a_condition_is_the_tables():
    case = patients(4000, CODES)
    shown = shown_on_ecg(*case[:3])
    for code in CODES:
        always, share = VISIBLE[code]
        assert shown.sees(code).float().mean().item() == pytest.approx(always + (1 - always) * share, abs=0.035)
    for name, forms in FORMS.items():
        assert sum(part for _, part in forms) == pytest.approx(1.0)
        for i, (_, part) in enumerate(forms):
            assert (shown.forms[name] == i).float().mean().item() == pytest.approx(part, abs=0.035)
    again = shown_on_ecg(case[0], case[1] + 1, case[2])
    assert all(torch.equal(again.forms[name], shown.forms[name]) for name in FORMS)
    assert not torch.equal(again.sees("I48"), shown.sees("I48"))


def test_a_condition_that_does_not_show_leaves_the_ecg_alone():
    for code in ("I73", "I82", "I70"):
        assert torch.equal(draw(patients(6, [code])), draw(patients(6)))


def test_bad_input_is_refused():
    case = patients(3)
    with pytest.raises(ValueError, match="condition is .*must be"):
        synthesise_progression_ecg(case[0], case[1], case[2][:, :5], *case[3:])
    with pytest.raises(ValueError, match="treated is"):
        synthesise_progression_ecg(*case[:5], case[5][:2])
    with pytest.raises(ValueError, match="samples=3"):
        synthesise_progression_ecg(*case, samples=3)
    assert synthesise_progression_ecg(*case, samples=250).shape == (3, 12, 250)
