"""The machine: processor, threads, GPU, compiler, and folders that must take files."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from clinenv.commands.doctor.finding import Finding

__all__ = ["caches", "compiler", "findings", "gpu", "processor", "threads"]


def findings() -> Iterator[Finding]:
    """All of this module."""
    yield processor()
    yield threads()
    yield gpu()
    yield compiler()
    yield from caches()


def processor() -> Finding:
    """What torch uses of it: results are the same to the bit on one kind, and to a stated tolerance between kinds."""
    import torch

    capability = torch.backends.cpu.get_cpu_capability()
    model = _model() or platform.processor() or "unnamed"
    said = f"{platform.machine()}, {model}, torch uses {capability}"
    if capability in ("DEFAULT", "NO AVX"):
        return Finding("processor", "note", said, "nothing: it works, more slowly than on a processor with AVX2")
    return Finding("processor", "ok", said)


def _model() -> str | None:
    """The processor's name, where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


def threads() -> Finding:
    """torch's threads against the processors that this process may use."""
    import torch

    count = torch.get_num_threads()
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    said = f"torch works on {count}, this process may use {allowed} processors"
    if count > allowed:
        return Finding("threads", "note", said, f"set OMP_NUM_THREADS={allowed}: threads that wait spin")
    return Finding("threads", "ok", said)


def gpu() -> Finding:
    """Whether this torch finds one."""
    import torch

    if not torch.cuda.is_available():
        built = "without CUDA" if torch.version.cuda is None else f"for CUDA {torch.version.cuda}"
        return Finding("GPU", "ok", f"none is found (torch {torch.__version__} is built {built}); none is needed")
    names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    return Finding("GPU", "ok", f"{names} (CUDA {torch.version.cuda})")


def compiler() -> Finding:
    """A C++ compiler, which torch.compile needs and nothing else here does."""
    candidates = [os.environ.get("CXX", ""), "c++", "g++", "clang++"]
    found = next((path for name in candidates if name and (path := shutil.which(name))), None)
    if found is None:
        remedy = "install a C++ compiler where torch.compile is wanted; nothing else needs one"
        return Finding("compiler", "note", "no C++ compiler is found", remedy)
    return Finding("compiler", "ok", Path(found).name)


def caches() -> Iterator[Finding]:
    """Folders that are written to: for temporary files, and matplotlib's list of fonts."""
    import matplotlib

    folders = {"temporary folder": tempfile.gettempdir(), "cache folder": matplotlib.get_cachedir()}
    for name, folder in folders.items():
        try:
            with tempfile.NamedTemporaryFile(dir=folder, prefix=".clinenv-doctor-"):
                yield Finding(name, "ok", f"{folder} takes files")
        except OSError as error:
            said = f"{folder} takes no files ({error.strerror})"
            yield Finding(name, "wrong", said, "make it writable, or set TMPDIR and MPLCONFIGDIR to folders that are")
