"""Servers that behave badly: whatever one sends, in time and in bytes, out comes LLMServerError and nothing else."""

from __future__ import annotations

import json
import random
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from world_models.ehr_world.causal_lm.client import LLMClient, LLMServerError
from world_models.ehr_world.causal_lm.prompt import parse_answer

GOOD = json.dumps({"choices": [{"text": "fine", "finish_reason": "stop"}]}).encode()
KEY = "sk-secret"


class Raw:
    """A server that reads one request and then writes the bytes `pieces()` gives, until the client hangs up."""

    def __init__(self) -> None:
        self.pieces: Callable[[], Iterator[bytes]] = lambda: iter([answer(GOOD)])
        self.asked: list[bytes] = []
        self.sent = 0
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/v1"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return  # closed: the test is over
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        with connection:
            try:
                connection.settimeout(5.0)
                # the whole request: closing before its last byte was read would reset the connection
                with connection.makefile("rb") as sent:
                    head = b"".join(iter(sent.readline, b"\r\n"))
                    length = re.search(rb"(?i)content-length: (\d+)", head)
                    self.asked.append(head + sent.read(int(length[1]) if length else 0))
                for piece in self.pieces():
                    connection.sendall(piece)
                    self.sent += len(piece)
                connection.shutdown(socket.SHUT_WR)
                connection.recv(1)
            except OSError:
                pass  # the client hung up


def answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


@pytest.fixture
def raw() -> Iterator[Raw]:
    made = Raw()
    yield made
    made.socket.close()


def client(url: str, **settings: object) -> LLMClient:
    fixed = {"backoff_s": 0.0, "timeout_s": 0.4, "retries": 0, "most_bytes": 1 << 16, "api_key": KEY}
    return LLMClient(url, "small", **{**fixed, **settings})


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
def test_no_redirect_is_followed(raw: Raw, status: str) -> None:
    stranger = Raw()
    raw.pieces = lambda: iter([answer(b"", status, f"Location: {stranger.url}/completions")])
    for ask in (lambda c: c.complete(["p"], 4), lambda c: c.models()):
        with pytest.raises(LLMServerError, match=rf"{status[:3]}.*{stranger.url}.*not followed.*base_url"):
            ask(client(raw.url, retries=3))
    assert stranger.asked == [] and len(raw.asked) == 2
    for place in ("file:///etc/passwd", "//[", "", "/v1/completions", "ftp://x/"):
        raw.pieces = lambda place=place: iter([answer(b"", status, f"Location: {place}")])
        with pytest.raises(LLMServerError, match="not followed"):
            client(raw.url).complete(["p"], 4)
    stranger.socket.close()


def drip(first: bytes, each: bytes) -> Callable[[], Iterator[bytes]]:
    def pieces() -> Iterator[bytes]:
        yield first
        for _ in range(400):
            time.sleep(0.02)
            yield each

    return pieces


def flood(first: bytes, each: bytes) -> Callable[[], Iterator[bytes]]:
    def pieces() -> Iterator[bytes]:
        yield first
        for _ in range((64 << 20) // len(each)):
            yield each

    return pieces


HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
CHUNK = b"1000\r\n" + b" " * 4096 + b"\r\n"


@pytest.mark.parametrize(
    ("first", "each"),
    [
        (b"", b"H"),
        (HEAD, b"X-Slow: 1\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (HEAD + b"Content-Length: 1000\r\n\r\n", b" "),
        (HEAD + b"\r\n", b" "),
        (CHUNKED, b"1\r\n \r\n"),
        (CHUNKED + b"0\r\n", b"X-Trailer: 1\r\n"),
        (b"HTTP/1.1 500 Busy\r\nContent-Length: 4000\r\n\r\n", b" "),
    ],
)
def test_one_deadline_for_the_whole_answer(raw: Raw, first: bytes, each: bytes) -> None:
    raw.pieces = drip(first, each)
    began = time.monotonic()
    with pytest.raises(LLMServerError, match=r"no answer within 0\.4 s|status 500"):
        client(raw.url).complete(["p"], 4)
    assert time.monotonic() - began < 1.2


@pytest.mark.parametrize(
    ("first", "each"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X: " + b"y" * 30_000 + b"\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
        (HEAD + b"\r\n", CHUNK),
        (CHUNKED, CHUNK),
        (CHUNKED + b"0\r\n", b"X-Trailer: 1\r\n" * 100),
        (HEAD + b"Content-Length: 1000000000000000\r\n\r\n", CHUNK),
        (CHUNKED + b"ffffffffffff\r\n", CHUNK),
    ],
)
def test_one_size_for_the_whole_answer(raw: Raw, first: bytes, each: bytes) -> None:
    raw.pieces = flood(first, each)
    with pytest.raises(LLMServerError, match=r"more than 65536 bytes.*most_bytes"):
        client(raw.url, timeout_s=20.0).complete(["p"], 4)
    assert raw.sent < 48 << 20, "the client hung up"


def test_an_answer_of_just_the_size_is_read(raw: Raw) -> None:
    whole = answer(GOOD)
    raw.pieces = lambda: iter([whole])
    assert client(raw.url, most_bytes=len(whole)).complete(["p"], 4)[0].text == "fine"
    with pytest.raises(LLMServerError, match=f"more than {len(whole) - 1} bytes"):
        client(raw.url, most_bytes=len(whole) - 1).complete(["p"], 4)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        b'{"choices": [{"text": ' + b"[" * 900 + b"]" * 900 + b"}]}",
        b"1" * 6000,
        b'{"choices": {"0": 1}}',
        b'{"choices": "text"}',
        b'{"choices": [null]}',
        b'{"choices": [[["text"]]]}',
        b'{"choices": []}',
        b'{"choices": [{"text": {"a": 1}}]}',
        b"null",
        b'"text"',
        b"NaN",
        b"true",
    ],
)
def test_json_of_any_form_is_named(raw: Raw, body: bytes) -> None:
    raw.pieces = lambda: iter([answer(body)])
    with pytest.raises(LLMServerError, match="expected"):
        client(raw.url, most_bytes=1 << 20).complete(["p"], 4)
    with pytest.raises(LLMServerError, match="expected"):
        client(raw.url, most_bytes=1 << 20).models()


def test_odd_but_usable_answers(raw: Raw) -> None:
    nested = b"[" * 900 + b"]" * 900
    raw.pieces = lambda: iter(
        [answer(b'{"choices": [{"text": "a\\ud800\\nb", "finish_reason": ' + nested + b'}], "usage": [1]}')]
    )
    found = client(raw.url).complete(["p"], 4)[0]
    assert (found.text, found.finish_reason, found.prompt_tokens) == ("a?\nb", "", None)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\r\n",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        HEAD + b"Content-Length: 1000\r\n\r\n{}",
        CHUNKED + b"zz\r\n{}\r\n",
        CHUNKED + b"-5\r\n{}\r\n",
        CHUNKED,
        HEAD + b"X: 1\r\n" * 200 + b"\r\n",
        HEAD + b"X: " + b"y" * 70_000 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00" * 50,
        b"HTTP/1.1 99999999999999999999 OK\r\n\r\n",
    ],
)
def test_what_is_no_http_is_a_failed_connection(raw: Raw, sent: bytes) -> None:
    raw.pieces = lambda: iter([sent])
    with pytest.raises(LLMServerError, match="the connection failed|status"):
        client(raw.url, most_bytes=1 << 20, timeout_s=5.0).complete(["p"], 4)


def test_random_damage_never_raises_anything_else(raw: Raw) -> None:
    dice = random.Random(0)
    whole = answer(GOOD, "200 OK", "Retry-After: 1", "Location: /x", "Transfer-Encoding: chunked")
    asker = client(raw.url, timeout_s=2.0)
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(dice.randint(1, 6)):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        raw.pieces = lambda damaged=bytes(damaged): iter([damaged])
        found = asker.complete(["p"], 4, raising=False)[0]
        assert isinstance(found, LLMServerError) or isinstance(found.text, str)


@pytest.mark.parametrize(
    "value", ["nan", "inf", "-1", "1e999", "soon", "Thu, 01 Jan 0000 00:00:00 -0000", "9" * 5000, ","]
)
def test_any_retry_after_waits_no_longer_than_allowed(raw: Raw, value: str) -> None:
    raw.pieces = lambda: iter([answer(b"", "503 Busy", f"Retry-After: {value}")])
    began = time.monotonic()
    with pytest.raises(LLMServerError, match="no answer in 2 attempts"):
        client(raw.url, retries=1, longest_wait_s=0.05).complete(["p"], 4)
    assert time.monotonic() - began < 1.0


def test_a_server_that_repeats_the_key_does_not_get_it_shown(raw: Raw) -> None:
    for status in ("200 OK", "400 Bad", "503 Busy", "302 Found"):
        raw.pieces = lambda status=status: iter(
            [answer(f"Bearer {KEY}".encode(), status, f"Location: http://x/?k={KEY}")]
        )
        with pytest.raises(LLMServerError) as caught:
            client(raw.url).complete(["p"], 4)
        assert KEY not in str(caught.value) and "[the API key]" in str(caught.value)


@pytest.mark.parametrize("key", ["sk-1\n", "sk\r\nX-Other: 1", "schlüssel", "a\x00b"])
def test_a_key_that_no_header_holds_is_refused_unshown(key: str) -> None:
    with pytest.raises(ValueError, match="api_key.*strip it") as caught:
        client("http://x/v1", api_key=key)
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://x:port/v1",
        "http://x:99999/v1",
        "http://[::1/v1",
        "http:///v1",
        "http://x/v1?a=1",
        "http://x/v1#a",
        "http://x/v 1",
        "http://x/v1\n",
        "file:///etc/passwd",
        "http://" + "a" * 80 + ".de/v1",
        "",
        None,
    ],
)
def test_an_address_that_cannot_be_asked_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="no http or https address"):
        client(url)


def test_a_password_in_the_address_is_refused_unshown() -> None:
    with pytest.raises(ValueError, match="give api_key") as caught:
        client("http://me:hush@x/v1")
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"timeout_s": float("inf")},
        {"timeout_s": float("nan")},
        {"timeout_s": "2"},
        {"most_bytes": 0},
        {"backoff_s": -1.0},
        {"longest_wait_s": float("nan")},
        {"retries": 10**9},
        {"concurrency": None},
    ],
)
def test_numbers_outside_their_limits_are_refused(settings: dict) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(settings))}=.*at least .* and at most"):
        client("http://x/v1", **settings)


def test_a_request_that_is_no_json_is_refused_before_anything_is_sent(raw: Raw) -> None:
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    for options in ({"bias": {1, 2}}, {"top_p": float("nan")}, {"extra": deep}):
        with pytest.raises(ValueError, match="cannot be written as JSON"):
            client(raw.url).complete(["p"], 4, **options)
    for prompts in ("one text", None, 5, {"a": 1}):
        with pytest.raises(ValueError, match="list of prompts"):
            client(raw.url).complete(prompts, 4)
    for prompt in (5, None, [object()]):
        with pytest.raises(ValueError, match="cannot be written as JSON"):
            client(raw.url).complete(["fine", prompt], 4)
    assert raw.asked == []
    while deep:  # a hundred thousand lists are taken apart one by one, not by the interpreter's own recursion
        deep = deep.pop()


def test_nested_answers_of_a_model_are_missing_outcomes() -> None:
    nested = "[" * 5000 + "]" * 5000
    for text in ('{"a": ' * 50_000 + "1" + "}" * 50_000, f'{{"heart_rate_bpm": {nested}}}', "{" * 9999 + "}"):
        assert parse_answer(text, ["heart_rate_bpm"]).missing == 1
    found = parse_answer('{"heart\\nrate bpm": 82, "status": {"value": {"value": 1}}}', ["heart_rate_bpm", "status"])
    assert (found.asked[0].value, found.missing) == (82.0, 1)
