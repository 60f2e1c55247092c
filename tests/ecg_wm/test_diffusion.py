"""Samplers against distributions with known answers; conditions, targets and mismatches by what they promise."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from benchmarks.ecg_drug.diffusion_known import KNOWN_PARTS, KNOWN_SIZE, known_pairs, known_post
from world_models import keys
from world_models.ecg_wm.config import SMALL
from world_models.ecg_wm.diffusion.condition import ConditionLayout, Part
from world_models.ecg_wm.diffusion.ddpm import DDIM, DDPM
from world_models.ecg_wm.diffusion.denoiser import Denoiser, DenoiserConfig
from world_models.ecg_wm.diffusion.distil import pair_score, scored
from world_models.ecg_wm.diffusion.latent_diffusion import DiffusionConfig, Pairs
from world_models.ecg_wm.diffusion.mismatch import misspecified, mistaken_change
from world_models.ecg_wm.diffusion.rectified_flow import RectifiedFlow
from world_models.ecg_wm.diffusion.sampler import Guidance, Sampler
from world_models.ecg_wm.diffusion.student import FewStepStudent, StudentConfig
from world_models.ecg_wm.diffusion.target import ResidualUnits, given_prior
from world_models.ecg_wm.diffusion.train import fresh, random_share, train_student, train_teacher
from world_models.ecg_wm.latent_ode import PhysiologicalPrior
from world_models.ecg_wm.start_rates import REFERENCE_MG, START_RATES
from world_models.training import Schedule

SAMPLERS: dict[str, Sampler] = {
    "ddpm": DDPM(),
    "ddim": DDIM(),
    "rectified flow": RectifiedFlow(),
    "heun": RectifiedFlow(heun=True),
}
MEAN, SD = 1.5, 0.4


class Optimal(Denoiser):
    """The denoiser that has learned N(MEAN, SD^2) perfectly."""

    def __init__(self, sampler: Sampler, mean: float = MEAN, sd: float = SD):
        nn.Module.__init__(self)
        self.sampler, self.mean, self.sd = sampler, mean, sd

    def context(self, condition: Tensor) -> Tensor:
        return condition

    def forward(self, x: Tensor, time: float | Tensor, context: Tensor) -> Tensor:
        alpha, sigma = self.sampler.path(torch.as_tensor(time, dtype=torch.float64))
        if alpha.ndim:
            alpha, sigma = alpha.unsqueeze(-1), sigma.unsqueeze(-1)
        share = alpha * self.sd**2 / (alpha.square() * self.sd**2 + sigma.square())
        z = self.mean + share * (x - alpha * self.mean)
        return self.sampler.velocity(z, (x - alpha * z) / sigma, alpha, sigma).to(x)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_perfect_denoiser_gives_back_its_distribution(name: str) -> None:
    sampler = SAMPLERS[name]
    key = keys.from_seed(0, 4000)
    drawn = sampler.sample(Optimal(sampler), torch.zeros(4000, 1), sampler.noise(key, 100, 1), 100)
    assert abs(float(drawn.mean()) - MEAN) < 0.03
    assert abs(float(drawn.std()) / SD - 1) < 0.06


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_prediction_and_its_ends_are_inverse(name: str) -> None:
    sampler = SAMPLERS[name]
    key = keys.from_seed(3, 64)
    z, e = keys.normal(key, 0, "z", (5,)), keys.normal(key, 0, "e", (5,))
    alpha, sigma = (part.unsqueeze(-1) for part in sampler.path(keys.uniform(key, 0, "t")))
    found = sampler.ends(alpha * z + sigma * e, sampler.velocity(z, e, alpha, sigma), alpha, sigma)
    torch.testing.assert_close(found, (z, e), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_loss_is_least_for_the_true_distribution(name: str) -> None:
    sampler = SAMPLERS[name]
    key = keys.from_seed(4, 4000)
    z = MEAN + SD * keys.normal(key, 0, "z", (1,))
    right, *wrong = (
        float(sampler.loss(Optimal(sampler, *law), z, torch.zeros(4000, 1), key))
        for law in ((MEAN, SD), (MEAN + 0.4, SD), (MEAN, 3 * SD))
    )
    assert all(right < other for other in wrong)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_row_is_what_the_same_row_alone_gives(name: str) -> None:
    sampler = SAMPLERS[name]
    model = Denoiser(DenoiserConfig(3, 2, 16, 2))
    nn.init.constant_(model.leave.weight, 0.1)
    key = keys.from_seed(9, 7)
    condition = keys.normal(key, 0, "c", (2,))
    with torch.no_grad():
        whole = sampler.sample(model, condition, sampler.noise(key, 6, 3), 6)
        alone = sampler.sample(model, condition[4:5], sampler.noise(key[4:5], 6, 3), 6)
    torch.testing.assert_close(whole[4:5], alone, atol=1e-5, rtol=1e-4)
    assert float(whole.std(0).min()) > 0.1


def test_samplers_say_what_noise_they_need() -> None:
    model, condition = Denoiser(DenoiserConfig(3, 2, 8, 1)), torch.zeros(4, 2)
    with pytest.raises(ValueError, match=r"noise has shape \(1, 4, 3\).*\[5, B, Z\]"):
        DDPM().sample(model, condition, torch.zeros(1, 4, 3), 5)
    with pytest.raises(ValueError, match="at least 1"):
        RectifiedFlow().sample(model, condition, torch.zeros(1, 4, 3), 0)


@pytest.mark.parametrize("name", ["ddpm", "ddim", "rectified flow"])
def test_guidance_draws_towards_the_energy(name: str) -> None:
    """N(0, 1) times exp(-(z - 2)^2 / 2) is N(1, 1/2)."""
    sampler = SAMPLERS[name]
    key = keys.from_seed(1, 3000)
    noise = sampler.noise(key, 60, 1)
    means = []
    for strength in (0.0, 0.3, 1.0):
        guide = Guidance(lambda z: 0.5 * (z - 2).square().sum(-1), strength, longest=10.0)
        drawn = sampler.sample(Optimal(sampler, 0.0, 1.0), torch.zeros(3000, 1), noise, 60, guide)
        means.append(float(drawn.mean()))
    assert abs(means[0]) < 0.06 and means[0] < means[1] < means[2]
    assert abs(means[2] - 1) < 0.2 and float(drawn.std()) < 0.95


def test_a_guided_move_is_never_longer_than_allowed() -> None:
    guide = Guidance(lambda z: 1e6 * z.square().sum(-1), 1.0, longest=0.5)
    z = torch.tensor([[3.0, 4.0]])
    torch.testing.assert_close((guide.move(z, 1.0) - z).norm(), torch.tensor(0.5))


# ---- the condition


LAYOUT = ConditionLayout((Part("leads", 3, "entries", 0.5), Part("age", 1, "whole", 0.2), Part("dose", 2)))


def test_what_is_missing_is_zero_and_marked() -> None:
    nan = float("nan")
    values = {"leads": torch.tensor([[1.0, nan, 3.0]]), "age": torch.tensor([nan]), "dose": torch.tensor([[5.0, 6.0]])}
    seen = {"leads": torch.tensor([[True, True, False]])}
    built = LAYOUT.build(values, seen)
    assert built.tolist() == [[1, 0, 0, 1, 0, 0, 0, 0, 5, 6]]
    assert LAYOUT.size == built.shape[1] == 10
    assert LAYOUT.build({"dose": values["dose"]}).tolist() == [[0] * 8 + [5, 6]]


def test_dropping_hides_the_shares_that_were_asked_for() -> None:
    key = keys.from_seed(0, 4000)
    values = {"leads": torch.ones(4000, 3), "age": torch.ones(4000, 1), "dose": torch.ones(4000, 2)}
    built = LAYOUT.build(values, LAYOUT.drop(values, key))
    assert abs(float(built[:, 3:6].mean()) - 0.5) < 0.03 and abs(float(built[:, 7].mean()) - 0.8) < 0.03
    torch.testing.assert_close(built[:, :3], built[:, 3:6])
    assert bool((built[:, 8:] == 1).all())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"leads": torch.zeros(2, 3)}, "'dose' is missing"),
        ({"dose": torch.zeros(2, 3)}, r"shape \(2, 3\); give \[B, 2\]"),
        ({"dose": torch.full((2, 2), float("nan"))}, "not finite"),
        ({"dose": torch.zeros(2, 2), "wight": torch.zeros(2)}, "unknown parts wight"),
        ({}, "no part is given"),
    ],
)
def test_a_wrong_condition_is_refused(values: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LAYOUT.build(values)


def test_a_wrong_layout_is_refused() -> None:
    with pytest.raises(ValueError, match="choose never, whole or entries"):
        Part("x", 1, "sometimes")
    with pytest.raises(ValueError, match=r"drop=0\.5"):
        Part("x", 1, "never", 0.5)
    with pytest.raises(ValueError, match="twice: x"):
        ConditionLayout((Part("x", 1), Part("x", 2)))


# ---- target and mismatch


def test_target_goes_there_and_back_and_the_share_lies_between() -> None:
    key = keys.from_seed(2, 100)
    pre, prior, post = (keys.normal(key, n, "z", (4,)) for n in range(3))
    assert torch.equal(given_prior(pre, prior, 0.0), pre)
    torch.testing.assert_close(given_prior(pre, prior, torch.ones(100)), prior)
    given = given_prior(pre, prior, torch.full((100,), 0.5))
    torch.testing.assert_close(given, 0.5 * (pre + prior))
    units = ResidualUnits(4)
    units.measure(post - given)
    residual = units.standard(post, given)
    torch.testing.assert_close(residual.std(0), torch.ones(4))
    torch.testing.assert_close(units.restore(residual, given), post)
    with pytest.raises(ValueError, match=r"prior_share from 1\.2"):
        given_prior(pre, prior, 1.2)
    with pytest.raises(ValueError, match="at least 2"):
        units.measure(post[:1])


def test_a_misspecified_prior_is_wrong_by_its_size_and_leaves_the_right_one_alone() -> None:
    prior = PhysiologicalPrior(SMALL, 4, START_RATES, REFERENCE_MG)
    before = prior.log_rate.detach().clone()
    same, wrong = (misspecified(prior, keys.from_seed(1), size) for size in (0.0, 0.5))
    assert torch.equal(same.log_rate, prior.log_rate) and torch.equal(before, prior.log_rate)
    off = (wrong.log_rate - prior.log_rate).detach()
    assert 0.3 < float(off.std()) < 0.7
    assert bool(((wrong.slope / prior.slope) > 0).all()) and not torch.equal(wrong.slope, prior.slope)
    with pytest.raises(ValueError, match="no log_speed"):
        misspecified(prior, keys.from_seed(1), 0.5, ("log_speed",))
    with pytest.raises(ValueError, match=r"size=-1"):
        misspecified(prior, keys.from_seed(1), -1)
    factor = mistaken_change(torch.ones(4000, 2), keys.from_seed(0, 4000), 0.5)
    assert abs(float(factor.log().std()) - 0.5) < 0.02 and abs(float(factor.median()) - 1) < 0.03


def test_shares_for_training() -> None:
    share = random_share(keys.from_seed(0, 8000))
    assert abs(float((share == 1).float().mean()) - 0.5) < 0.03
    assert abs(float((share == 0).float().mean()) - 0.125) < 0.02
    assert bool(((share >= 0) & (share <= 1)).all())


# ---- the student


def test_pair_score_sees_a_wrong_correlation() -> None:
    key = keys.from_seed(0, 4000)
    e = keys.normal(key, 0, "e", (2,))
    observed = torch.stack([e[:, 0], 0.9 * e[:, 0] + math.sqrt(1 - 0.81) * e[:, 1]], dim=-1)
    n = keys.normal(key, 1, "e", (8, 2)).transpose(0, 1)
    right = torch.stack([n[..., 0], 0.9 * n[..., 0] + math.sqrt(1 - 0.81) * n[..., 1]], dim=-1)
    means = [sum(float(pair_score(x, observed, key[k:]).mean()) for k in range(8)) for x in (right, n)]
    assert means[0] < means[1]


def test_the_student_needs_samples_to_compare() -> None:
    student = FewStepStudent(StudentConfig(2, 1, 8))
    with pytest.raises(ValueError, match="samples=1"):
        scored(student, torch.zeros(3, 2), torch.zeros(3, 1), keys.from_seed(0, 3), 1)


def test_the_students_cost_is_counted() -> None:
    student = FewStepStudent(StudentConfig(7, 5, 16, 2, 3))
    linear = [m for m in student.modules() if isinstance(m, nn.Linear) and m is not student.field.when]
    in_field = {id(m) for m in (student.field.enter, student.field.leave, *student.field.hidden)}
    counted = sum(m.weight.numel() * (3 if id(m) in in_field else 1) for m in linear)
    assert student.multiplications == counted


STEPS = 300


def known_draw(step: int) -> tuple[Pairs, Tensor]:
    key = keys.from_seed(10**7 + 128 * step, 128)
    return known_pairs(key), keys.fold(key, "loss")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory):
    """Teacher and student of the known distribution, briefly trained."""
    model = fresh(DiffusionConfig(64, 2, 48, 1, 2), KNOWN_SIZE, KNOWN_PARTS, seed=0)
    some = known_pairs(keys.from_seed(5, 4000))
    model.units.measure(some.z_post - some.z_prior)
    folder = tmp_path_factory.mktemp("diffusion")
    schedule = Schedule(STEPS, learning_rate=6e-3, warm_up=20, average=0.97)
    train_teacher(model, RectifiedFlow(), known_draw, schedule, folder, partial=False)
    train_student(model, known_draw, schedule, folder, samples=4, partial=False)
    return model, folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["student", "teacher"])
def test_a_trained_model_has_the_known_distributions_features(trained, name: str) -> None:
    model, _ = trained
    key = keys.from_seed(77, 3000)
    pairs = known_pairs(key)
    _, condition, given = model.prepare(pairs)
    drawn = model.sample(condition, given, key, None if name == "student" else RectifiedFlow(), 30)
    truth = known_post(pairs.parts["x"], keys.fold(key, 1))
    off, real = (z - pairs.z_prior for z in (drawn, truth))
    assert float((off.mean(0) - real.mean(0)).abs().max()) < 0.2
    assert float((off.std(0) / real.std(0) - 1).abs().max()) < 0.2
    x = pairs.parts["x"]
    ratio = float(off[x[:, 0] > 0.5, 3].std() / off[x[:, 0] < -0.5, 3].std())
    assert ratio > 1.8  # truth: 2.9 in the conditional spread, less here, with what the bend adds to both
    assert float(((off[:, 4] * x[:, 1].sign()) > 0).float().mean()) > 0.62  # truth: 0.8; neither side favoured: 0.5
    assert float(torch.corrcoef(off[:, :4].T)[0, 1]) > 0.6  # truth: above 0.8


@pytest.mark.slow
def test_one_key_one_sample_and_the_student_takes_no_guidance(trained) -> None:
    model, _ = trained
    key = keys.from_seed(3, 6)
    _, condition, given = model.prepare(known_pairs(key))
    whole = model.sample(condition, given, key)
    torch.testing.assert_close(model.sample(condition[2:3], given[2:3], key[2:3]), whole[2:3], atol=1e-5, rtol=1e-4)
    assert not torch.equal(model.sample(condition, given, keys.fold(key, 1)), whole)
    with pytest.raises(ValueError, match="cannot be guided"):
        model.sample(condition, given, key, guidance=(None, torch.zeros(6, 9), 1.0))


@pytest.mark.slow
def test_a_finished_stage_is_loaded_and_not_trained_again(trained) -> None:
    model, folder = trained
    again = fresh(DiffusionConfig(64, 2, 48, 1, 2), KNOWN_SIZE, KNOWN_PARTS, seed=1)

    def never(step: int) -> tuple[Pairs, Tensor]:
        raise AssertionError("trained again")

    train_student(again, never, Schedule(STEPS), folder)
    for one, other in zip(again.student.parameters(), model.student.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_first_weights_depend_on_the_seed_alone() -> None:
    config = DiffusionConfig(16, 1, 8, 1, 1)
    one = fresh(config, 3, KNOWN_PARTS, 5)
    torch.rand(3, generator=torch.Generator().manual_seed(1))
    assert torch.equal(one.teacher.enter.weight, fresh(config, 3, KNOWN_PARTS, 5).teacher.enter.weight)
    assert not torch.equal(one.teacher.enter.weight, fresh(config, 3, KNOWN_PARTS, 6).teacher.enter.weight)
