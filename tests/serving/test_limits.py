"""Bounds: sessions, seconds, bytes, memory; garbage, foreign web pages and clients that vanish."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import threading
import time

import pytest
from websockets.exceptions import ConnectionClosed

from clinenv.serving import sessions as sessions_module
from clinenv.serving.course import Course, Served
from clinenv.serving.limits import Limits
from clinenv.serving.server import running
from tests.serving.asking import WAIT_S, Asking, patiently, say

ID = "ECGExplain-v0"  # the lightest


@pytest.fixture(scope="module")
def light(served) -> list[Served]:
    return [served[ID]]


def test_sessions_are_bounded_and_come_free(light) -> None:
    with running(light, Limits(max_sessions=2, idle_s=600.0)) as url:
        asking = Asking(url)
        first = asking.post("/reset", {})["metadata"]["session_id"]
        with asking.live("/ws") as held:
            say(held, {"type": "reset", "data": {}})
            status, told, headers = asking.raw("POST", "/reset", b"{}")
            assert status == 503 and int(headers["retry-after"]) > 0 and told["code"] == "CAPACITY_REACHED"
            assert "2 sessions are open and the limit is 2" in told["detail"] and "--max-sessions" in told["detail"]
            with asking.live("/ws") as late:
                error = json.loads(late.recv(WAIT_S))
                assert error["data"]["code"] == "CAPACITY_REACHED" and error["data"]["max_sessions"] == 2
            assert asking.get("/health")["sessions"] == 2
            asking.post("/close", {"session_id": first})
            asking.post("/reset", {})
        # the connection's session ends with it
        assert patiently(lambda: asking.get("/health")["sessions"] == 1)
        with contextlib.suppress(ConnectionClosed), asking.live("/ws") as vanished:
            say(vanished, {"type": "reset", "data": {}})
            vanished.socket.shutdown(socket.SHUT_RDWR)  # without a word
        assert patiently(lambda: asking.get("/health")["sessions"] == 1)
        # a reset that fails keeps no session
        assert "height_m" in asking.refused("/reset", {"options": {"height_m": 2}})
        assert asking.get("/health")["sessions"] == 1


def test_idle_sessions_end(light) -> None:
    with running(light, Limits(idle_s=0.4)) as url:
        asking = Asking(url)
        session = asking.post("/reset", {})["metadata"]["session_id"]
        assert patiently(lambda: asking.get("/health")["sessions"] == 0)
        sent = {"action": {"value": 0}, "session_id": session}
        assert "has ended after 0.4 s without a request" in asking.refused("/step", sent, 404)
        with asking.live("/ws") as silent:
            told = json.loads(silent.recv(WAIT_S))
            assert told["data"]["code"] == "SESSION_ERROR" and "0.4 s" in told["data"]["message"]


def test_a_step_has_its_time(light, monkeypatch) -> None:
    free, real = threading.Event(), Course.step

    def slow(self, action):
        free.wait(WAIT_S)
        return real(self, action)

    with running(light, Limits(step_timeout_s=1.0, workers=1)) as url:
        asking = Asking(url)
        one, other = (asking.post("/reset", {})["metadata"]["session_id"] for _ in "ab")
        monkeypatch.setattr(Course, "step", slow)
        step = {"action": {"value": 0}}
        assert "longer than 1 s and the session has ended" in asking.refused("/step", {**step, "session_id": one}, 504)
        assert asking.get("/health")["status"] == "degraded"
        # the only worker is taken: whose turn does not come has lost nothing
        told = asking.refused("/step", {**step, "session_id": other}, 503)
        assert "was not begun: nothing has happened" in told
        free.set()
        monkeypatch.setattr(Course, "step", real)
        assert patiently(lambda: asking.get("/health")["status"] == "healthy")
        assert asking.post("/step", {**step, "session_id": other})["done"]
        asking.refused("/step", {**step, "session_id": one}, 404)


def test_memory_is_bounded(light, monkeypatch) -> None:
    monkeypatch.setattr(sessions_module, "resident_mb", lambda: 5000.0)
    with running(light, Limits(max_memory_mb=4096.0)) as url:
        told = Asking(url).refused("/reset", {}, 503)
        assert "holds 5000 MB and the limit is 4096" in told and "--max-memory-mb" in told


BODIES = [
    (b'{"seed": NaN}', 422, "NaN"),
    (b'{"options": {"age_years": Infinity}}', 422, "Infinity"),
    (b'{"options": {"age_years": 1e999}}', 422, "too large"),
    (b'{"seed": ' + b"9" * 5000 + b"}", 422, "5000 digits"),
    (b'{"seed": -1}', 422, "seed -1 is no whole number from 0 to"),
    (b'{"seed": true}', 422, "seed True is no whole number"),
    (b'{"seed": 1, "seed": 2}', 422, "'seed' is there twice"),
    (b'{"sede": 1}', 422, "field 'sede' of a reset is unknown; it may have seed"),
    (b'{"options": [1]}', 422, "is no object"),
    (b'{"observation": "truth"}', 422, "observation 'truth' is unknown; give one of both, text, chart"),
    (b'{"episode_id": ""}', 422, "no text of 1 to 255"),
    (b"[" * 3000, 422, ""),
    (b'{"options": ' + b'{"a":' * 20 + b"1" + b"}" * 21, 422, "deeper than 8"),
    (b"[1]", 422, "no JSON object"),
    (b"\xff\xfe{}", 422, "no UTF-8"),
    (b"\x80\x04\x95\x10", 422, ""),
    (b'{"options": {"height_m": 2}}', 422, "height_m"),
    (b'{"a": "' + b"x" * 70_000 + b'"}', 413, "more than 65536 bytes"),
]


@pytest.mark.parametrize(("body", "status", "told"), BODIES)
def test_a_body_that_is_none_is_named(asking: Asking, body: bytes, status: int, told: str) -> None:
    before = asking.get("/health")["sessions"]
    found, answer, _ = asking.raw("POST", "/ECGDrug-v0/reset", body)
    assert found == status and told in answer["detail"] and "\n" not in answer["detail"], answer
    assert len(answer["detail"]) < 600
    assert asking.get("/health")["sessions"] == before


def test_any_bytes_are_answered(asking: Asking) -> None:
    """A reset mutated byte by byte: each is read, or refused with one sentence, and the server lives on."""
    whole = json.dumps({"seed": 3, "options": {"age_years": 70.5}, "observation": "text"}).encode()
    draw = random.Random(1)
    for _ in range(40):
        body = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            body[draw.randrange(len(body))] = draw.randrange(256)
        status, answer, _ = asking.raw("POST", "/ECGExplain-v0/reset", bytes(body))
        assert status == 422 and answer["detail"]
    for path in ("/reset/..", "/%2e%2e/etc", "/NoSuch-v0/reset", "/step?x=1"):
        assert asking.raw("GET", path)[0] in (404, 405)
    assert asking.get("/health")["status"] == "healthy"


def test_foreign_pages_are_kept_out(asking: Asking) -> None:
    assert asking.raw("POST", "/reset", b"{}", Content_Type="text/plain")[0] == 415
    assert asking.raw("POST", "/reset", b"{}", Origin="http://evil.example")[0] == 403
    assert asking.raw("GET", "/envs", Host="evil.example")[0] == 403
    assert asking.raw("GET", "/envs", Host="localhost:1")[0] == 200
    with pytest.raises(Exception, match="403"), asking.live("/ws", origin="http://evil.example"):
        pass


def test_slow_clients_are_let_go(light) -> None:
    with running(light, Limits(request_s=0.5)) as url:
        asking = Asking(url)
        host, _, port = asking.address.partition(":")
        for begun, told in (
            (b"", b""),  # says nothing at all
            (b"POST /reset HTTP/1.1\r\nHost: 127", b""),  # never ends its head
            (b"POST /reset HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{",
             b"408"),
            (b"POST /none HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{",
             b"404"),  # was answered, and goes on
        ):  # fmt: skip
            with socket.create_connection((host, int(port)), WAIT_S) as slow:
                slow.sendall(begun)
                answer, end = b"", time.monotonic() + WAIT_S
                while (piece := slow.recv(4096)) and time.monotonic() < end:
                    answer += piece
                assert (told in answer) if told else not answer
        assert asking.get("/health")["sessions"] == 0
