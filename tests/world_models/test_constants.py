"""Cached constants: right, one copy a device, and fit for gradients whatever mode first asked for them."""

from __future__ import annotations

import torch

from world_models.constants import constant


def test_a_constant_made_in_inference_mode_serves_where_gradients_are_taken():
    row = (1.5, -2.25, 3.125)
    cpu = torch.device("cpu")
    with torch.inference_mode():
        made = constant(row, cpu)
    assert made is constant(row, cpu) and made.dtype == torch.float32 and made.tolist() == list(row)
    assert constant(row, cpu, torch.float64).dtype == torch.float64
    x = torch.ones(3, requires_grad=True)
    (x * made).sum().backward()
    assert torch.equal(x.grad, made)
