"""A pure function of tensors, recorded once and replayed as a flat list of operations.

Python writes physiology readably, but on small batches the ward's time is overhead: `x * 0.3` costs three times
`x * y`, as torch wraps and casts the number at every call, and the six fast steps of a half hour compute many things
six times over. Recording (torch.fx) lets this be taken out: numbers become zero-dimensional tensors of the right type,
equal subexpressions are computed once, and a result that nobody needs again is overwritten by the next. Every remaining
operation is the same kernel on the same values, so the result is bit for bit that of the function itself.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from world_models import tree

__all__ = ["Program"]

# operations that take a number in the place of a tensor, and give the same bits either way
_COMPARISONS = {operator.gt, operator.ge, operator.lt, operator.le}
_ELEMENTWISE = {operator.add, operator.sub, operator.mul, operator.truediv, *_COMPARISONS, torch.where}

_IN_PLACE_BINARY = {operator.add: "add_", operator.sub: "sub_", operator.mul: "mul_", operator.truediv: "div_"}
_IN_PLACE_UNARY = {"clamp", "clamp_min", "clamp_max", "exp", "log", "sqrt", "abs", "reciprocal", "expm1", "log1p"}
_MAY_ALIAS = {"to", "float", "double", "expand_as", "contiguous", getattr}
_MAKES_NEW = {*_IN_PLACE_BINARY, *_IN_PLACE_BINARY.values(), *_IN_PLACE_UNARY, *(f"{n}_" for n in _IN_PLACE_UNARY)}
_MAKES_NEW |= {torch.where, "minimum", "maximum", operator.neg}


class Program:
    """`Program(function, *example)(*arguments)` equals `function(*arguments)`.

    Args:
        function: of trees of tensors (NamedTuples, dicts), giving a tree built like its first argument. It must not ask
            for a tensor's value or shape.
        example: arguments as it will get them: their structure, types and device are recorded, not their values.
    """

    def __init__(self, function: Callable[..., Any], *example: Any) -> None:
        graph = fx.Graph()
        tracer = fx.proxy.GraphAppendingTracer(graph)
        inputs = tree.leaves(example)
        proxies = [fx.Proxy(graph.placeholder(f"x{i}"), tracer) for i in range(len(inputs))]
        following = iter(proxies)
        result = function(*tree.map_leaves(lambda _: next(following), example))
        ends: list[fx.Node] = []
        tree.map_leaves(lambda _, proxy: ends.append(proxy.node), example[0], result)
        graph.output(tuple(ends))
        _share(graph)
        graph.eliminate_dead_code()
        self.constants, values = _constants(graph, inputs)
        _reuse(graph, values)
        graph.lint()
        module = fx.GraphModule(torch.nn.Module(), graph)
        self.operations = sum(node.op.startswith("call") for node in graph.nodes)
        self._run = module.forward

    def __call__(self, *arguments: Any) -> Any:
        following = iter(self._run(*tree.leaves(arguments), *self.constants))
        return tree.map_leaves(lambda _: next(following), arguments[0])


def _share(graph: fx.Graph) -> None:
    """Compute equal subexpressions once."""
    seen: dict[Any, fx.Node] = {}
    for node in list(graph.nodes):
        if not node.op.startswith("call"):
            continue
        key = (node.op, node.target, repr(node.args), repr(node.kwargs))  # a node's repr is its unique name
        if key in seen:
            node.replace_all_uses_with(seen[key])
            graph.erase_node(node)
        else:
            seen[key] = node


def _constants(graph: fx.Graph, inputs: list[Tensor]) -> tuple[list[Tensor], dict[fx.Node, Any]]:
    """Turn numbers into inputs after the real ones. Gives them, and every node's value on the example."""
    values: dict[fx.Node, Any] = {}
    made: dict[tuple[float, torch.dtype], fx.Node] = {}
    constants: list[Tensor] = []
    places = [node for node in graph.nodes if node.op == "placeholder"]
    values.update(zip(places, inputs, strict=True))
    last = places[-1]
    device = inputs[0].device

    def constant(number: float, like: torch.dtype) -> fx.Node:
        nonlocal last
        if (number, like) not in made:
            with graph.inserting_after(last):
                last = graph.placeholder(f"c{len(constants)}")
            made[number, like] = last
            constants.append(torch.tensor(number, dtype=like, device=device))
            values[last] = constants[-1]
        return made[number, like]

    for node in list(graph.nodes):
        if not node.op.startswith("call"):
            continue
        # number / tensor stays: torch computes reciprocal times number, which is not the division
        inverse = node.target is operator.truediv and isinstance(node.args[0], int | float)
        if node.op == "call_function" and node.target in _ELEMENTWISE and not inverse:
            tensors = [values[a] for a in node.args if isinstance(a, fx.Node)]
            floating = [x.dtype for x in tensors if isinstance(x, Tensor) and x.is_floating_point()]
            if floating:
                like = torch.float64 if torch.float64 in floating else floating[0]
                node.args = tuple(constant(float(a), like) if isinstance(a, int | float) else a for a in node.args)
        args = fx.node.map_arg(node.args, values.__getitem__)
        kwargs = fx.node.map_arg(node.kwargs, values.__getitem__)
        if node.op == "call_method":
            values[node] = getattr(args[0], node.target)(*args[1:], **kwargs)
        else:
            values[node] = node.target(*args, **kwargs)
    return constants, values


def _reuse(graph: fx.Graph, values: dict[fx.Node, Any]) -> None:
    """Write a result over an operand of the same type and shape that this program made and nothing needs any more."""
    place = {node: i for i, node in enumerate(graph.nodes)}
    last = {node: max((place[user] for user in node.users), default=-1) for node in graph.nodes}
    # a conversion may hand its operand through: neither may be written over
    shared = {n for node in graph.nodes if node.target in _MAY_ALIAS for n in (node, *node.all_input_nodes)}

    def spent(operand: Any, node: fx.Node) -> bool:
        if not isinstance(operand, fx.Node) or operand in shared or not operand.op.startswith("call"):
            return False
        old, new = values[operand], values[node]
        same = isinstance(old, Tensor) and old.dtype == new.dtype and old.shape == new.shape
        return same and last[operand] == place[node] and operand.target in _MAKES_NEW

    for node in graph.nodes:
        first = node.args[0] if node.args else None
        if node.target in _IN_PLACE_BINARY:
            if not spent(first, node) and node.target in (operator.add, operator.mul) and spent(node.args[1], node):
                node.args = (node.args[1], first)
            if spent(node.args[0], node) and node.args[0] is not node.args[1]:
                node.op, node.target = "call_method", _IN_PLACE_BINARY[node.target]
        elif node.op == "call_method" and node.target in _IN_PLACE_UNARY and spent(first, node):
            node.target = node.target + "_"
