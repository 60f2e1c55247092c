"""Keys: stable across processes, batch-independent, and as random as they claim."""

import subprocess
import sys

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from world_models import keys, tree


@given(seed=st.integers(0, 2**62), row=st.integers(0, 63), t=st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_a_row_alone_meets_the_same_luck(seed, row, t):
    batch = keys.from_seed(seed, 64)
    alone = keys.from_seed(seed + row)
    assert torch.equal(batch[row : row + 1], alone)
    for sample in (keys.normal, keys.uniform, keys.noise):
        assert torch.equal(sample(batch, t, "a", (5,))[row : row + 1], sample(alone, t, "a", (5,)))
    assert torch.equal(keys.fold(batch, 7)[row : row + 1], keys.fold(alone, torch.tensor([7])))


@given(seed=st.integers(0, 2**62), batch=st.integers(1, 40), t=st.integers(-3, 2**40))
@settings(max_examples=30, deadline=None)
def test_several_purposes_at_once_are_the_very_bits_of_separate_draws(seed, batch, t):
    key = keys.from_seed(seed, batch)
    for when in (t, key % 1000, torch.tensor(t)):
        together = keys.uniforms(key, when, ("a", ("b", 5), "c"))
        apart = [keys.uniform(key, when, name, (count,)) for name, count in (("a", 1), ("b", 5), ("c", 1))]
        assert together.dtype == torch.float32 and torch.equal(together, torch.cat(apart, dim=-1))
        assert torch.equal(keys.uniforms(key, when, ("c", "a"))[:, 1], keys.uniform(key, when, "a"))
        assert torch.equal(keys.to_normal(together[:, 1:6]), keys.normal(key, when, "b", (5,)))


def test_a_number_folds_in_like_a_tensor_of_it():
    key = keys.from_seed(3, 5)
    for number in (0, 7, -5, 2**62, -(2**63)):
        assert torch.equal(keys.fold(key, number), keys.fold(key, torch.tensor(number)))
    assert torch.equal(keys.fold(key, 2**64 + 7), keys.fold(key, 7))


def test_moments_and_independence():
    key = keys.from_seed(1, 200_000)
    for sample in (keys.normal, keys.noise):
        x, y = sample(key, 0, "x", (1,))[:, 0], sample(key, 1, "x", (1,))[:, 0]
        assert abs(x.mean()) < 0.01 and abs(x.std() - 1) < 0.01 and abs((x * y).mean()) < 0.01
    u = keys.uniform(key, 0, "u")
    assert 0 < u.min() and u.max() < 1 and abs(u.mean() - 0.5) < 0.005
    share = torch.bincount(keys.categorical(key, 0, "c", torch.tensor([1.0, 3.0])), minlength=2) / key.shape[0]
    assert abs(share[1] - 0.75) < 0.01
    assert abs(keys.bernoulli(key, 0, "b", torch.full_like(u, 0.2)).float().mean() - 0.2) < 0.01


def test_no_two_keys_collide():
    key = keys.from_seed(0, 100_000)
    assert key.unique().numel() == 100_000
    assert keys.fold(key, 1).unique().numel() == 100_000


def test_the_same_in_another_process():
    code = "from world_models import keys; print(keys.normal(keys.from_seed(5, 3), 2, 'noise', (2,)).tolist())"
    here = keys.normal(keys.from_seed(5, 3), 2, "noise", (2,)).tolist()
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert there.strip() == str(here)


def test_tree_surgery():
    a = {"x": torch.arange(4.0), "y": (torch.zeros(4, 2), None)}
    b = tree.map_leaves(lambda v: v + 10, a)
    mixed = tree.where(torch.tensor([True, False, True, False]), a, b)
    assert mixed["x"].tolist() == [0, 11, 2, 13] and mixed["y"][1] is None
    put = tree.put(a, torch.tensor([1, 3]), tree.take(b, torch.tensor([0, 1])))
    assert put["x"].tolist() == [0, 10, 2, 11] and a["x"].tolist() == [0, 1, 2, 3]
    assert tree.repeat(a, 2)["x"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3] and tree.batch_size(tree.cat([a, b])) == 8
