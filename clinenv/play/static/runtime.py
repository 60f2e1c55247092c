"""onnxruntime-web, which runs the page's networks in a browser: its two files, out of its npm package."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import tarfile
import urllib.error
import urllib.request
from pathlib import Path

__all__ = ["PACKAGE", "VERSION", "RuntimeMissing", "files_of", "package_bytes"]

VERSION = "1.30.0"
PACKAGE = f"onnxruntime-web-{VERSION}.tgz"
_REGISTRY = "https://registry.npmjs.org"
_SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
_TIMEOUT_S = 60.0
_MOST_BYTES = 200_000_000  # of a package, and of a file in it
# in the package -> on the page; .js, since some servers know no .mjs
_FILES = {
    "package/dist/ort.wasm.bundle.min.mjs": "onnxruntime-web.js",
    "package/dist/ort-wasm-simd-threaded.wasm": "ort-wasm-simd-threaded.wasm",
}


class RuntimeMissing(ValueError):
    """The package cannot be had, or is another one; the message says what to do."""


def package_bytes(file: str | Path | None = None) -> bytes:
    """The npm package: of a file, or from the registry (`npm_config_registry`, else npm's own).

    Raises:
        RuntimeMissing: it cannot be read or fetched, or is not the one whose checksum is known.
    """
    if file is not None:
        try:
            content = Path(file).read_bytes()
        except OSError as error:
            raise RuntimeMissing(f"{file}: {error.strerror}; give the file that npm pack wrote, {PACKAGE}") from error
    else:
        address = f"{os.environ.get('npm_config_registry', _REGISTRY).rstrip('/')}/onnxruntime-web/-/{PACKAGE}"
        try:
            with urllib.request.urlopen(address, timeout=_TIMEOUT_S) as answer:
                content = answer.read(_MOST_BYTES)
        except (urllib.error.URLError, OSError) as error:
            raise RuntimeMissing(
                f"{address} cannot be had ({error}); fetch it elsewhere by npm pack onnxruntime-web@{VERSION}, and "
                "name the file by --onnxruntime-web"
            ) from error
    if base64.b64encode(hashlib.sha512(content).digest()).decode() != _SHA512:
        raise RuntimeMissing(f"{file or address} is not {PACKAGE} as npm has it (its SHA-512 differs); fetch it anew")
    return content


def files_of(package: bytes) -> dict[str, bytes]:
    """The files of the page out of the package, by their names there."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(package), mode="r:gz") as archive:
        for inside, name in _FILES.items():
            member = archive.extractfile(inside)
            assert member is not None
            found[name] = member.read(_MOST_BYTES)
    return found
