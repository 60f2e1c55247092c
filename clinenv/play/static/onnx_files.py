"""Networks as ONNX files that onnxruntime-web runs, and such files run here, to be held against the networks."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from world_models.files import replacing

__all__ = ["Named", "loaded", "write"]

Named = dict[str, Tensor]
OPSET = 18
_OUT = "next."  # before the names of outputs: ONNX lets no output bear the name of an input
# Giles 2011, "Approximating the erfinv function", single precision: where w = -ln(1 - x^2) is below 5, and beyond
_NEAR = (
    2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087, -0.00125372503, -0.00417768164,
    0.246640727, 1.50140941,
)  # fmt: skip
_FAR = (
    -0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613, 0.00943887047,
    1.00167406, 2.83297682,
)  # fmt: skip


def write(network: nn.Module, inputs: Mapping[str, Any], file: Path) -> None:
    """The network, traced on these arguments of its `forward` (tensors, or dicts of tensors by name), as one file.

    Inputs and outputs bear the tensors' names; batch sizes are those of the arguments.

    Raises:
        ImportError: onnx or onnxscript is missing.
    """
    import onnx  # noqa: F401  (torch says less clearly that it is missing)
    import onnxscript  # noqa: F401

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("onnxscript").setLevel(logging.ERROR)
        outputs = network(**inputs)
        program = torch.export.export(network, (), dict(inputs), strict=False)
        made = torch.onnx.export(
            program,
            (),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            external_data=False,
            input_names=list(_flat(inputs)),
            output_names=[_OUT + name for name in outputs],
            custom_translation_table={torch.ops.aten.erfinv.default: _erfinv(), torch.ops.prims.erf_inv.default: _erfinv()},
        )
    assert made is not None
    with replacing(file) as partial:
        made.save(str(partial))


def loaded(file: Path) -> Callable[[Named], Named]:
    """A file as a function of its inputs by name; those that it does not know are left aside.

    Raises:
        ImportError: onnxruntime is missing.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    takes, gives = [i.name for i in session.get_inputs()], [o.name.removeprefix(_OUT) for o in session.get_outputs()]

    def run(tensors: Named) -> Named:
        found = session.run(None, {name: tensors[name].numpy() for name in takes})
        return {name: torch.from_numpy(np.array(value)) for name, value in zip(gives, found, strict=True)}

    return run


def _flat(inputs: Mapping[str, Any]) -> Named:
    """The tensors of arguments by name, in the order in which torch lays them out."""
    found: Named = {}
    for name, value in inputs.items():
        found |= {name: value} if isinstance(value, Tensor) else value
    return found


def _erfinv() -> Callable[..., Any]:
    """The inverse error function of float32, which ONNX does not have."""
    from onnxscript import opset18 as op

    def polynomial(w: Any, factors: tuple[float, ...]) -> Any:
        total = op.Constant(value_float=factors[0])
        for factor in factors[1:]:
            total = op.Add(op.Mul(total, w), op.Constant(value_float=factor))
        return total

    def erfinv(x: Any) -> Any:
        one, five = op.Constant(value_float=1.0), op.Constant(value_float=5.0)
        w = op.Neg(op.Log(op.Mul(op.Sub(one, x), op.Add(one, x))))
        near = polynomial(op.Sub(w, op.Constant(value_float=2.5)), _NEAR)
        far = polynomial(op.Sub(op.Sqrt(op.Max(w, five)), op.Constant(value_float=3.0)), _FAR)
        return op.Mul(op.Where(op.Less(w, five), near, far), x)

    return erfinv
