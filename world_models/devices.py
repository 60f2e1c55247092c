"""Where tensors are to live, checked before anything is made there."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["checked_device"]


def checked_device(device: Any) -> torch.device:
    """The device of this name, on which this torch can work.

    Raises:
        ValueError: no name of a device, one that this torch or this machine does not have, or one that holds no data.
    """
    remedy = "take 'cpu', or 'cuda' where torch finds a GPU"
    if not isinstance(device, str | torch.device):
        raise ValueError(f"device={device!r} is a {type(device).__name__}, no name of a device; {remedy}")
    try:
        found = torch.device(device)
        if found.type == "meta":
            raise RuntimeError("it holds shapes, no numbers")
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:  # each backend has its own
        reason = str(error).strip().split("\n")[0][:120]
        raise ValueError(f"device={str(device)!r} cannot be used here ({reason}); {remedy}") from None
    return found
