"""Networks as ONNX files that onnxruntime-web runs, and such files run here, to be held against the networks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from world_models.files import replacing

__all__ = ["flat", "loaded", "write"]

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
        ImportError: onnx is missing.
    """
    tensors = flat(inputs)
    with torch.no_grad(), warnings.catch_warnings(), replacing(file) as partial, _translations():
        warnings.simplefilter("ignore")  # a tracer warns of each length that Python looks at; all are fixed here
        gives = [_OUT + name for name in network(**inputs)]
        # by tracing: `torch.export` takes ten times as long for these thousands of small operations
        torch.onnx.export(
            _Flat(network, inputs), tuple(tensors.values()), str(partial), dynamo=False, opset_version=OPSET,
            input_names=list(tensors), output_names=gives,
        )  # fmt: skip


class _Flat(nn.Module):
    """A network that takes tensors one after the other and gives them so."""

    def __init__(self, network: nn.Module, like: Mapping[str, Any]) -> None:
        super().__init__()
        self.network, self.like = network, like

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        rest = iter(tensors)
        given = {
            name: next(rest) if isinstance(value, Tensor) else {part: next(rest) for part in value}
            for name, value in self.like.items()
        }
        return tuple(self.network(**given).values())


@contextmanager
def _translations() -> Iterator[None]:
    """What ONNX, or torch's tracer, has no words for: erfinv, and the bits of signed numbers."""

    def erfinv(g: Any, x: Any) -> Any:
        def number(value: float) -> Any:
            return g.op("Constant", value_t=torch.tensor(value))

        def polynomial(w: Any, factors: tuple[float, ...]) -> Any:
            total = number(factors[0])
            for factor in factors[1:]:
                total = g.op("Add", g.op("Mul", total, w), number(factor))
            return total

        square = g.op("Mul", g.op("Sub", number(1.0), x), g.op("Add", number(1.0), x))
        w = g.op("Neg", g.op("Log", square))
        near = polynomial(g.op("Sub", w, number(2.5)), _NEAR)
        far = polynomial(g.op("Sub", g.op("Sqrt", g.op("Max", w, number(5.0))), number(3.0)), _FAR)
        return g.op("Mul", g.op("Where", g.op("Less", w, number(5.0)), near, far), x)

    def xor(g: Any, a: Any, b: Any) -> Any:
        return g.op("BitwiseXor", a, b)

    @torch.onnx.symbolic_helper.parse_args("v", "i")
    def shift(g: Any, x: Any, bits: int) -> Any:
        """Logical, where torch's is arithmetic: `keys` masks the sign's copies off in any case. ONNX shifts unsigned
        numbers alone, of which torch's tracer knows nothing: so divided, without the sign, which is then put back."""

        def number(value: int) -> Any:
            return g.op("Constant", value_t=torch.tensor(value))

        rest = g.op("Div", g.op("BitwiseAnd", x, number((1 << 63) - 1)), number(1 << bits))
        sign = g.op("Where", g.op("Less", x, number(0)), number(1 << (63 - bits)), number(0))
        return g.op("Add", rest, sign)

    def expm1(g: Any, x: Any) -> Any:
        """tanh(x / 2) (exp(x) + 1): exp(x) - 1 would lose the digits of a small x."""
        one, half = (g.op("Constant", value_t=torch.tensor(value)) for value in (1.0, 0.5))
        return g.op("Mul", g.op("Tanh", g.op("Mul", x, half)), g.op("Add", g.op("Exp", x), one))

    def flatten(g: Any, x: Any, first: Any, last: Any) -> Any:
        """With the sizes of the trace: torch's own translation forgets how many there are."""
        traced = g.original_node.output().type()
        shape = g.op("Constant", value_t=torch.tensor(traced.sizes()))
        return g.op("Reshape", x, shape).setType(traced)

    @torch.onnx.symbolic_helper.parse_args("v", "i", "i")
    def movedim(g: Any, x: Any, source: int, destination: int) -> Any:
        """Torch's own translation reads the places of dimensions wrongly where they are plain numbers."""
        traced = g.original_node.output().type()
        rank = len(traced.sizes())
        order = [d for d in range(rank) if d != source % rank]
        order.insert(destination % rank, source % rank)
        return g.op("Transpose", x, perm_i=order).setType(traced)

    words: dict[str, Callable[..., Any]] = {
        "aten::erfinv": erfinv,
        "aten::expm1": expm1,
        "aten::flatten": flatten,
        "aten::movedim": movedim,
    }  # the tracer's names of one operation differ with how it was written
    words |= dict.fromkeys(("aten::bitwise_xor", "aten::__xor__", "aten::__xor_"), xor)
    words |= dict.fromkeys(("aten::bitwise_right_shift", "aten::__rshift__", "aten::__rshift_"), shift)
    for name, word in words.items():
        torch.onnx.register_custom_op_symbolic(name, word, OPSET)
    try:
        yield
    finally:
        for name in words:
            torch.onnx.unregister_custom_op_symbolic(name, OPSET)


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


def flat(inputs: Mapping[str, Any]) -> Named:
    """The tensors of arguments by name, in the order in which torch lays them out."""
    found: Named = {}
    for name, value in inputs.items():
        found |= {name: value} if isinstance(value, Tensor) else value
    return found
