"""Pure functions of tensors as machine code: `Compiled(function)` equals `function`, at a fraction of the price.

Eagerly a step of one patient is five hundred calls of torch that compute a handful of numbers each: the time is the
calls'. Here the function is written down once as one graph (`torch.export`; Python runs only then, so purposes of keys
are hashed and constants made only then), made into a shared library by torch's own compiler (AOTInductor), and called
with a flat list of tensors, without guards. One library stands for one shape: another batch size is compiled anew.

The library is kept on disk (`cache_folder`), under a name made of everything it depends on: what the function is bound
to, shapes, this project's sources, torch and the processor. A later process loads it in milliseconds and needs no
compiler. Where there is neither library nor compiler, it is said once and the function runs as it is.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from functools import cache, cached_property, partial
from pathlib import Path, PurePath
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from world_models import tree

__all__ = ["CompileError", "Compiled", "Counts", "Run", "cache_folder", "counts", "cxx_compiler", "fingerprint"]

CACHE_VARIABLE = "CLINENV_COMPILED"  # names another folder than ~/.cache/clinenv/compiled
_PACKAGES = ("world_models", "clinenv")  # whose sources a library depends on
_SOURCES = (".py", ".json", ".csv", ".npz")
# Multiplication and addition are not fused, so that a number rounds as in eager torch.
_OPTIONS: dict[str, Any] = {
    "cpp.enable_floating_point_contract_flag": "off",
    "max_fusion_size": 100_000,  # one kernel of thousands of operations: what lies between kernels costs more
}


class CompileError(RuntimeError):
    """A function that cannot be written down as one graph; the message says what stands in the way."""


class Counts(NamedTuple):
    """What this process compiled so far."""

    compiled: int  # libraries made here, each for one function and shape
    loaded: int  # libraries loaded, these and those found on disk
    seconds: float  # spent on both


class _Tally:
    compiled, loaded, seconds = 0, 0, 0.0


_TALLY = _Tally()


def counts() -> Counts:
    """How many libraries were made and loaded: no step after the first of its shape may add to it."""
    return Counts(_TALLY.compiled, _TALLY.loaded, _TALLY.seconds)


def cache_folder() -> Path:
    """Where libraries are kept: $CLINENV_COMPILED, else clinenv/compiled in the user's cache."""
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clinenv" / "compiled"


def cxx_compiler() -> str | None:
    """The C++ compiler that torch would call ($CXX, or the platform's own), or None where there is none."""
    default = "clang++" if sys.platform == "darwin" else "g++"
    return shutil.which(os.environ.get("CXX", default))


def fingerprint(*bound: Any) -> str:
    """A name for what a function is bound to (a world with its weights, a task): equal for what is built equally.

    Raises:
        CompileError: something of which it cannot be told.
    """
    return hashlib.sha256(repr([_told(thing, ()) for thing in bound]).encode()).hexdigest()


def _told(thing: Any, above: tuple[int, ...]) -> Any:
    """A thing by what it is made of; `above` are the ids of those that hold it."""
    if thing is None or isinstance(thing, bool | int | float | complex | str | bytes | Enum | PurePath):
        return repr(thing)
    if isinstance(thing, torch.dtype | torch.device | torch.Size | type | FunctionType | BuiltinFunctionType):
        return getattr(thing, "__qualname__", repr(thing)), getattr(thing, "__module__", "")
    if isinstance(thing, Tensor):
        thing = thing.detach().cpu().contiguous()
        return str(thing.dtype), tuple(thing.shape), _sum(thing.reshape(-1).view(torch.uint8).numpy().tobytes())
    if isinstance(thing, np.ndarray | np.generic):
        return str(thing.dtype), thing.shape, _sum(thing.tobytes())
    if id(thing) in above:
        return "above", len(above) - above.index(id(thing))
    inner = (*above, id(thing))
    if isinstance(thing, Mapping):
        return [(repr(name), _told(value, inner)) for name, value in thing.items()]
    if isinstance(thing, list | tuple):
        return type(thing).__qualname__, [_told(value, inner) for value in thing]
    if isinstance(thing, set | frozenset):
        return sorted(repr(_told(value, inner)) for value in thing)
    if isinstance(thing, partial | MethodType):
        parts = (
            (thing.func, thing.args, thing.keywords) if isinstance(thing, partial) else (thing.__func__, thing.__self__)
        )
        return [_told(part, inner) for part in parts]
    kind = type(thing)
    slots = [name for each in kind.__mro__ for name in getattr(each, "__slots__", ()) if hasattr(thing, name)]
    held = {**{name: getattr(thing, name) for name in slots}, **getattr(thing, "__dict__", {})}
    if not held and not hasattr(thing, "__dict__"):
        raise CompileError(f"{thing!r}, a {kind.__name__}, cannot be told by what it is made of; leave compile=False")
    # what a property made of the rest, and keeps, says nothing new
    own = {name: value for name, value in held.items() if not isinstance(getattr(kind, name, None), cached_property)}
    return kind.__module__, kind.__qualname__, _source(kind), _told(own, inner)


def _sum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _source(kind: type) -> str:
    """The sources of a class and those it stands on, where they are not ours (those count for all)."""
    found = ""
    for each in kind.__mro__:
        file = getattr(sys.modules.get(each.__module__), "__file__", None)
        if file and each.__module__.partition(".")[0] not in (*_PACKAGES, "torch"):
            found += _sum(Path(file).read_bytes())
    return found


@cache
def _surroundings() -> str:
    """What every library depends on: our sources, torch, the processor's instructions."""
    digest = hashlib.sha256(
        f"{torch.__version__} {platform.machine()} {torch.backends.cpu.get_cpu_capability()}".encode()
    )
    root = Path(__file__).resolve().parent.parent
    for package in _PACKAGES:
        for file in sorted((root / package).rglob("*")):
            if file.suffix in _SOURCES and file.is_file():
                digest.update(str(file.relative_to(root)).encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()


Run = Callable[[list[Tensor]], list[Tensor]]  # from flat inputs to flat outputs


class _Library(NamedTuple):
    """A function compiled for one shape."""

    run: Run
    strides: tuple[tuple[int, ...], ...]  # of the inputs, as the code reads them
    places: tuple[int, ...]  # of each leaf that comes out: i >= 0 is output i, below 0 input -1 - i itself
    like: Any  # a tree built as what comes out


class Compiled:
    """`Compiled(function, ...)(*trees)` equals `function(*trees)` on trees of tensors (`world_models.tree`).

    The first call of a shape runs the function itself, to warm what it keeps and to see what comes out, then compiles
    it or finds it on disk. Gradients are not passed. A pickle holds the description, and finds the library again.

    Args:
        function: pure; it must not ask for a tensor's value.
        what: said in the progress line.
        bound: everything that the function depends on besides its arguments, see `fingerprint`.
        again: arguments of the next call, from what came out and the arguments of this one: their memory is laid out
            as all later calls will have it. None: as in this call.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        what: str,
        bound: tuple[Any, ...],
        again: Callable[..., tuple[Any, ...]] | None = None,
    ) -> None:
        self.function, self.what, self.bound, self.again = function, what, bound, again
        self._libraries: dict[Any, _Library | None] = {}
        self._name = fingerprint(*bound)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_libraries": {}}

    @torch.no_grad()
    def __call__(self, *arguments: Any) -> Any:
        inputs = tree.leaves(arguments)
        shape = tuple([(x.shape, x.dtype, x.ndim > 0 and x.stride(0) == 0 and len(x) > 1) for x in inputs])
        try:
            library = self._libraries[shape]
        except KeyError:
            library = self._libraries[shape] = self._made(arguments)
        if library is None:
            return self.function(*arguments)
        laid = [
            x if x.stride() == wanted else torch.empty_strided(x.shape, wanted, dtype=x.dtype).copy_(x)
            for x, wanted in zip(inputs, library.strides, strict=True)
        ]
        out = library.run(list(laid))
        leaves = iter([out[i] if i >= 0 else inputs[-1 - i] for i in library.places])
        return tree.map_leaves(lambda _: next(leaves), library.like)

    @torch.no_grad()
    def flat(self, *arguments: Any) -> Run | None:
        """The bare code for arguments of this shape: from their leaves, laid out in memory as these, to those of what
        the function makes of them, none of which may be an argument itself. None where there is no compiler."""
        library = self._made(arguments)
        assert library is None or library.places == tuple(range(len(library.places))), "an argument came out again"
        return None if library is None else library.run

    def _made(self, arguments: tuple[Any, ...]) -> _Library | None:
        """The library of these arguments' shape; None where it cannot be had for want of a compiler."""
        like = self.function(*arguments)
        if self.again is not None:
            arguments = self.again(like, *arguments)
            like = self.function(*arguments)
        inputs, outputs = tree.leaves(arguments), tree.leaves(like)
        place = {id(x): -1 - i for i, x in enumerate(inputs)}
        changed = [x for x in outputs if id(x) not in place]
        following = iter(range(len(changed)))
        places = tuple(place[id(x)] if id(x) in place else next(following) for x in outputs)
        laid = [(tuple(x.shape), x.stride(), str(x.dtype)) for x in inputs]
        told = repr((self.what, self._name, _surroundings(), laid, torch.get_num_threads(), sorted(_OPTIONS.items())))
        file = cache_folder() / f"{hashlib.sha256(told.encode()).hexdigest()[:32]}.pt2"
        run = _runner(file, lambda: self._graph(arguments, places), self.what)
        return None if run is None else _Library(run, tuple(x.stride() for x in inputs), places, like)

    def _graph(self, arguments: tuple[Any, ...], places: tuple[int, ...]) -> Any:
        """The function on its flat inputs as one graph, giving the leaves that it made.

        Raises:
            CompileError: see there.
        """
        try:
            return torch.export.export(_Flat(self, arguments, places), (tree.leaves(arguments),), strict=False)
        except Exception as error:  # of many kinds, all of torch's own
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise CompileError(f"{self.what} cannot be compiled ({reason}); leave compile=False") from error


class _Flat(nn.Module):
    """A function over the flat list of its leaves; modules it is bound to are its own, so that weights are weights."""

    def __init__(self, compiled: Compiled, arguments: tuple[Any, ...], places: tuple[int, ...]) -> None:
        super().__init__()
        found = [x for thing in compiled.bound for x in (thing, *getattr(thing, "__dict__", {}).values())]
        self.modules_bound = nn.ModuleList([x for x in found if isinstance(x, nn.Module)])
        self._run, self._like, self._places = compiled.function, arguments, places

    def forward(self, inputs: list[Tensor]) -> list[Tensor]:
        following = iter(inputs)
        outputs = tree.leaves(self._run(*tree.map_leaves(lambda _: next(following), self._like)))
        return [x for x, place in zip(outputs, self._places, strict=True) if place >= 0]


@cache
def _say_no_compiler() -> None:
    warnings.warn(
        "compile=True: no C++ compiler was found, so steps run eagerly; install g++ (or name one in $CXX) to have them "
        "compiled",
        stacklevel=2,
    )


def _runner(file: Path, graph: Callable[[], Any], what: str) -> Run | None:
    """What runs the library in `file`, which is made first if it is not there; None where there is no compiler."""
    began = time.perf_counter()
    if not file.is_file():
        if cxx_compiler() is None:
            _say_no_compiler()
            return None
        with _progress(what):
            _write(file, graph())
        _TALLY.compiled += 1
    run = _loaded(file)
    _TALLY.seconds += time.perf_counter() - began
    return run


@cache
def _loaded(file: Path) -> Run:
    """The library in `file`; once a process."""
    _TALLY.loaded += 1
    return torch._inductor.aoti_load_package(str(file)).loader.boxed_run


def _write(file: Path, graph: Any) -> None:
    """Compile a graph into a file; it appears whole or not at all."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about itself
        path = str(Path(folder) / "library.pt2")
        torch._inductor.aoti_compile_and_package(graph, package_path=path, inductor_configs=dict(_OPTIONS))
        os.replace(path, file)


@contextmanager
def _progress(what: str) -> Iterator[None]:
    """A line on the error stream while something is compiled."""
    print(f"clinenv: compiling {what}, once on this machine ...", end="", file=sys.stderr, flush=True)
    began = time.perf_counter()
    try:
        yield
    finally:
        print(f" {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
