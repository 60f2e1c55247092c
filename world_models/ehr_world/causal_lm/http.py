"""One HTTP request whose whole answer, from connecting to the last byte, headers included, has a deadline and a size.

A socket's own time-out starts again with every byte and `http.client` reads as long as a server likes to talk, so both
limits stand where bytes come in. No redirect is followed: it would carry the API key to a place that nobody named.
"""

from __future__ import annotations

import functools
import http.client
import io
import socket
import time
import urllib.error
import urllib.request
from email.message import Message
from typing import IO, Any, NamedTuple, NoReturn

__all__ = ["Reply", "NoAnswer", "TooLong", "request"]

ERROR_BYTES = 4096  # of the body of a refusal: it is only shown
PIECE_BYTES = 1 << 16  # read at a time


class NoAnswer(Exception):
    """The connection failed, or the deadline passed: another attempt may go better."""


class TooLong(Exception):
    """More bytes came than were allowed."""


class Reply(NamedTuple):
    """What a server answered."""

    status: int
    reason: str
    headers: Message
    body: bytes  # of a status other than 2xx its first `ERROR_BYTES`


def request(url: str, data: bytes | None, headers: dict[str, str], timeout_s: float, most_bytes: int) -> Reply:
    """GET, or with `data` POST. Proxies are those of the environment, as everywhere in Python.

    Looking up a name is the system's business and keeps no deadline of ours; each address found may take `timeout_s` to
    connect.

    Raises:
        NoAnswer: nothing came, or not all of it, or what came is no HTTP.
        TooLong: headers and body are longer than `most_bytes`.
    """
    limits = _Limits(time.monotonic() + timeout_s, most_bytes)
    opener = urllib.request.build_opener(_NoRedirects, _HTTP(limits), _HTTPS(limits))
    try:
        with opener.open(urllib.request.Request(url, data, headers), timeout=timeout_s) as response:
            return Reply(response.status, response.reason, response.headers, _whole(response))
    except urllib.error.HTTPError as error:
        with error:
            return Reply(error.code, str(error.reason), error.headers, _beginning(error))
    except TimeoutError:
        _late(timeout_s)
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            _late(timeout_s)
        raise NoAnswer(f"the connection failed ({type(error.reason).__name__}: {error.reason})") from None
    # ValueError: what the standard library raises where a status line, a header or a host name makes no sense to it
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NoAnswer(f"the connection failed ({type(error).__name__}: {error})") from None


def _late(timeout_s: float) -> NoReturn:
    raise NoAnswer(f"no answer within {timeout_s:g} s") from None


def _whole(response: http.client.HTTPResponse) -> bytes:
    # piece by piece: `read` makes room at once for as many bytes as the server says will come
    body = b"".join(iter(functools.partial(response.read1, PIECE_BYTES), b""))
    if response.length:  # bytes that were announced and did not come
        raise http.client.IncompleteRead(body, response.length)
    return body


def _beginning(error: urllib.error.HTTPError) -> bytes:
    """What can be had of a refusal's body; the status says enough without it."""
    try:
        return error.read(ERROR_BYTES)
    except (OSError, http.client.HTTPException, ValueError, TooLong):
        return b""


class _Limits:
    """What is left of one answer's time and bytes."""

    def __init__(self, deadline: float, bytes_left: int) -> None:
        self.deadline, self.bytes_left = deadline, bytes_left

    def seconds_left(self) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def take(self, count: int) -> None:
        self.bytes_left -= count
        if self.bytes_left < 0:
            raise TooLong


class _Limited(io.RawIOBase):
    """What a socket receives, within the limits."""

    def __init__(self, sock: socket.socket, limits: _Limits) -> None:
        self._sock, self._limits = sock, limits
        self._whole = sock.makefile("rb", buffering=0)  # keeps the socket open as long as the response is read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(self._limits.seconds_left())
        count = self._sock.recv_into(buffer)
        self._limits.take(count)
        return count

    def close(self) -> None:
        if not self.closed:
            self._whole.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, limits: _Limits, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        self.fp = io.BufferedReader(_Limited(sock, limits))


class _Connection(http.client.HTTPConnection):
    def __init__(self, *args: Any, limits: _Limits, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limits = limits
        self.response_class = functools.partial(_Response, limits=limits)  # type: ignore[assignment] # only called

    def send(self, data: Any) -> None:
        if self.sock is not None:  # connecting has the time-out of the whole request
            self.sock.settimeout(self._limits.seconds_left())
        super().send(data)


class _SecureConnection(_Connection, http.client.HTTPSConnection):
    pass


class _HTTP(urllib.request.HTTPHandler):
    def __init__(self, limits: _Limits) -> None:
        super().__init__()
        self._limits = limits

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(functools.partial(_Connection, limits=self._limits), req)


class _HTTPS(urllib.request.HTTPSHandler):
    def __init__(self, limits: _Limits) -> None:
        super().__init__()
        self._limits = limits

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(functools.partial(_SecureConnection, limits=self._limits), req)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Leaves every redirect to the default, which raises it as the HTTPError it is."""

    def http_error_302(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: http.client.HTTPMessage
    ) -> None:
        return None

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302
