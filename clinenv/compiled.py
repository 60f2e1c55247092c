"""Pure functions of tensors as machine code: `Compiled(function)` equals `function`, at a fraction of the price.

Eagerly a step of one patient is five hundred calls of torch that compute a handful of numbers each: the time is the
calls'. Here the function is written down once as one graph (`torch.export`; Python runs only then, so purposes of keys
are hashed and constants made only then), made into a shared library by torch's own compiler (AOTInductor), and called
with a flat list of tensors, without guards. One library stands for one shape: another batch size is compiled anew.

The library is kept on disk (`cache_folder`), under a name made of everything it depends on: what the function is bound
to, shapes, this project's sources (of others' worlds and tasks: the graph), torch and the processor. A later process
loads it in milliseconds and needs no compiler. Where there is neither library nor compiler, it is said once and the
function runs as it is.
"""

from __future__ import annotations

import hashlib
import io
import os
import platform
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from filelock import FileLock  # torch's own dependency
from torch import Tensor, nn

from clinenv.fingerprint import PACKAGES, fingerprint
from world_models import tree

__all__ = ["CompileError", "Compiled", "Counts", "Run", "cache_folder", "counts", "cxx_compiler"]

CACHE_VARIABLE = "CLINENV_COMPILED"  # names another folder than ~/.cache/clinenv/compiled
_SOURCES = (".py", ".json", ".csv", ".npz")
# Multiplication and addition are not fused, so that a number rounds as in eager torch.
_OPTIONS: dict[str, Any] = {
    "cpp.enable_floating_point_contract_flag": "off",
    "max_fusion_size": 100_000,  # one kernel of thousands of operations: what lies between kernels costs more
}
LARGE = 4_000  # operations: of a larger graph kernels stay smaller, or the C++ compiler takes a quarter of an hour
_FUSED_IN_LARGE = 64


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


@cache
def _surroundings() -> str:
    """What every library depends on: our sources, torch, the processor's instructions."""
    digest = hashlib.sha256(
        f"{torch.__version__} {platform.machine()} {torch.backends.cpu.get_cpu_capability()}".encode()
    )
    root = Path(__file__).resolve().parent.parent
    for package in PACKAGES:
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
    shared: tuple[int, ...]  # which inputs must be one row of memory for all patients
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
        threads: that the code may use; None: as many as torch does at the first call of a shape.
        again: arguments of the next call, from what came out and the arguments of this one: their memory is laid out
            as all later calls will have it. None: as in this call.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        what: str,
        bound: tuple[Any, ...],
        again: Callable[..., tuple[Any, ...]] | None = None,
        threads: int | None = None,
    ) -> None:
        self.function, self.what, self.bound, self.again, self.threads = function, what, bound, again, threads
        self._libraries: dict[Any, list[_Library | None]] = {}
        try:
            self._told = fingerprint(*bound)
        except TypeError as error:
            raise CompileError(f"{what}: {error}; leave compile=False") from error

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_libraries": {}}

    @torch.no_grad()
    def __call__(self, *arguments: Any) -> Any:
        inputs = tree.leaves(arguments)
        shape = tuple([(x.shape, x.dtype) for x in inputs])
        for library in self._libraries.get(shape, ()):
            if library is None or all([_shared(inputs[i]) for i in library.shared]):
                break
        else:
            library = self._made(arguments)
            self._libraries.setdefault(shape, []).append(library)
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
            first, arguments = tree.leaves(arguments), self.again(like, *arguments)
            # one row for all patients is read as one only where it is so from the first call on
            each = iter(first)
            arguments = tree.map_leaves(lambda x: x if _shared(next(each)) else _dense(x), arguments)
            like = self.function(*arguments)
        inputs, outputs = tree.leaves(arguments), tree.leaves(like)
        place = {id(x): -1 - i for i, x in enumerate(inputs)}
        changed = [x for x in outputs if id(x) not in place]
        following = iter(range(len(changed)))
        places = tuple(place[id(x)] if id(x) in place else next(following) for x in outputs)
        laid = [(tuple(x.shape), x.stride(), str(x.dtype)) for x in inputs]
        # of others' code no name tells when it changes: the graph itself does, at the price of writing it every time
        graph = self._graph(arguments, places) if self._told.foreign else None
        name = self._told.name if graph is None else _graph_name(graph)
        options = {**_OPTIONS, "cpp.threads": self.threads or torch.get_num_threads()}
        told = repr((self.what, name, _surroundings(), laid, sorted(options.items())))
        file = cache_folder() / f"{hashlib.sha256(told.encode()).hexdigest()[:32]}.pt2"
        run = _runner(file, lambda: graph or self._graph(arguments, places), self.what, options)
        return (
            None
            if run is None
            else _Library(
                run,
                tuple(x.stride() for x in inputs),
                tuple(i for i, x in enumerate(inputs) if _shared(x)),
                places,
                like,
            )
        )

    def _graph(self, arguments: tuple[Any, ...], places: tuple[int, ...]) -> Any:
        """The function on its flat inputs as one graph, giving the leaves that it made.

        Raises:
            CompileError: see there.
        """
        function = _Flat(self, arguments, places)
        try:
            with _compiling():  # what Python keeps between calls must be kept of true numbers, not of a graph's
                function(tree.leaves(arguments))
            # of a failure torch prints the graph, and it warns of weights that a recurrent layer keeps twice
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return torch.export.export(function, (tree.leaves(arguments),), strict=False)
        except Exception as error:
            raise _refusal(self.what, error) from error


def _shared(x: Tensor) -> bool:
    """Whether all rows of x [B, ...] are one row of memory (`tree` keeps them so)."""
    return x.ndim > 0 and len(x) > 1 and x.stride(0) == 0


def _dense(x: Tensor) -> Tensor:
    return x.contiguous() if 0 in x.stride() else x


def _graph_name(graph: Any) -> str:
    """Of an exported program: its operations, constants and weights."""
    held = {**graph.constants, **graph.state_dict}
    return fingerprint(graph.graph_module.print_readable(print_output=False, include_stride=True), held).name


def _refusal(what: str, error: Exception) -> CompileError:
    """From an error of torch's, of which there are many kinds."""
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    return CompileError(f"{what} cannot be compiled ({reason}); leave compile=False")


@contextmanager
def _compiling() -> Iterator[None]:
    """Within, functions take the ways that they take while a graph is written."""
    before = torch.compiler._is_compiling_flag
    torch.compiler._is_compiling_flag = True
    try:
        yield
    finally:
        torch.compiler._is_compiling_flag = before


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


def _runner(file: Path, graph: Callable[[], Any], what: str, options: dict[str, Any]) -> Run | None:
    """What runs the library in `file`, which is made first if it is not there; None where there is no compiler."""
    began = time.perf_counter()
    try:
        if not file.is_file():
            if cxx_compiler() is None:
                _say_no_compiler()
                return None
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with FileLock(f"{file}.lock"):  # of many processes that want it at once, one makes it
                if not file.is_file():
                    with _progress(what):
                        _write(file, graph(), options, what)
                    _TALLY.compiled += 1
                    return _loaded(file)
        try:
            return _loaded(file)
        except (RuntimeError, OSError):  # of a file that is no library any more
            _say(f"clinenv: {file} is damaged; it is made again\n")
            file.unlink(missing_ok=True)
            return _runner(file, graph, what, options)
    finally:
        _TALLY.seconds += time.perf_counter() - began


@cache
def _loaded(file: Path) -> Run:
    """The library in `file`; once a process."""
    _TALLY.loaded += 1
    return torch._inductor.aoti_load_package(str(file)).loader.boxed_run


@contextmanager
def _lean_loops() -> Iterator[None]:
    """Within, a loop's round does not allocate what its kernels keep to themselves.

    Torch 2.13 knows which buffers these are, and forgets it where a loop's body becomes part of the whole. Of a step of
    the ward's oracle those were 1,800 of 5,000 tensors made.
    """
    from torch._inductor.graph import GraphLowering

    plain = GraphLowering.codegen_subgraph

    def remembered(self: GraphLowering, parent_graph: GraphLowering) -> None:
        plain(self, parent_graph)
        parent_graph.removed_buffers |= self.removed_buffers  # by names that are unique in the whole

    GraphLowering.codegen_subgraph = remembered  # type: ignore[method-assign]
    try:
        yield
    finally:
        GraphLowering.codegen_subgraph = plain  # type: ignore[method-assign]


def _write(file: Path, graph: Any, options: dict[str, Any], what: str) -> None:
    """Compile a graph into a file; it appears whole or not at all.

    Raises:
        CompileError: torch's compiler does not take it.
    """
    with tempfile.TemporaryDirectory(dir=file.parent) as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about itself
        path = str(Path(folder) / "library.pt2")
        if len(graph.graph.nodes) > LARGE:
            options = {**options, "max_fusion_size": _FUSED_IN_LARGE}
        try:
            with _lean_loops():
                torch._inductor.aoti_compile_and_package(graph, package_path=path, inductor_configs=options)
        except Exception as error:
            raise _refusal(what, error) from error
        os.replace(path, file)


@contextmanager
def _progress(what: str) -> Iterator[None]:
    """A line on the error stream while something is compiled."""
    _say(f"clinenv: compiling {what}, once on this machine ...")
    began = time.perf_counter()
    try:
        yield
    finally:
        _say(f" {time.perf_counter() - began:.0f} s\n")


def _say(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
