"""The client against a server of our own: order, concurrency, retries, time-outs, nonsense; and the prompt baseline."""

from __future__ import annotations

import importlib.util
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.ehr_world.causal_stays import stay
from world_models.data.ehr.episode import LARGEST
from world_models.ehr_world.causal_lm.client import LLMClient, LLMServerError
from world_models.ehr_world.causal_lm.prompt import PromptLLM, gguf, parse_answer, prompt, server
from world_models.ehr_world.causal_lm.text import STATUSES, AskedItem, NarrativeStep


class Stub:
    """A server whose `answer(body, n)` gives (status, headers, bytes) for the n-th request with that body."""

    def __init__(self) -> None:
        self.answer: Callable[[dict, int], tuple[int, dict[str, str], bytes]] = lambda body, n: said(body)
        self.seen: list[dict] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.most = self._now = 0
        self._lock = threading.Lock()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # noqa: N802
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with stub._lock:
                    count = stub.seen.count(body)
                    stub.seen.append(body)
                    stub.headers.append(dict(self.headers))
                    stub.times.append(time.monotonic())
                    stub._now += 1
                    stub.most = max(stub.most, stub._now)
                try:
                    answer = stub.answer({**body, "path": self.path}, count)
                finally:
                    # Counted out before the answer leaves: the client may ask anew the moment it has it.
                    with stub._lock:
                        stub._now -= 1
                self._send(*answer)

            def do_GET(self) -> None:  # noqa: N802
                self._send(200, {}, json.dumps({"data": [{"id": "small"}]}).encode())

            def _send(self, status: int, headers: dict[str, str], content: bytes) -> None:
                self.send_response(status)
                for name, value in {"Content-Length": str(len(content)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                try:
                    for byte in [b" "] * 100 if "X-Drip" in headers else [content]:
                        self.wfile.write(byte)
                        time.sleep(0.05 if "X-Drip" in headers else 0)
                except OSError:
                    pass  # the client hung up

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()


def said(body: dict, text: str | None = None) -> tuple[int, dict[str, str], bytes]:
    text = text if text is not None else (body.get("prompt") or body["messages"][-1]["content"]).upper()
    choice = {"text": text} if "prompt" in body else {"message": {"role": "assistant", "content": text}}
    answer = {"choices": [{**choice, "finish_reason": "stop"}], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
    return 200, {}, json.dumps(answer).encode()


@pytest.fixture
def stub() -> Iterator[Stub]:
    made = Stub()
    yield made
    made.server.shutdown()
    made.server.server_close()


def client(stub: Stub, **settings: object) -> LLMClient:
    return LLMClient(stub.url, "small", **{"backoff_s": 0.01, "timeout_s": 5.0, **settings})


def test_answers_come_in_order_and_no_more_requests_than_allowed_run_at_once(stub: Stub) -> None:
    def slow(body: dict, n: int) -> tuple[int, dict[str, str], bytes]:
        time.sleep(0.03)
        return said(body)

    stub.answer = slow
    answers = client(stub, concurrency=4, api_key="secret").complete(
        [f"p{i}" for i in range(12)], 8, 0.5, seed=7, stop=["\n"]
    )
    assert [a.text for a in answers] == [f"P{i}" for i in range(12)]
    assert 2 <= stub.most <= 4
    assert (answers[0].prompt_tokens, answers[0].completion_tokens, answers[0].attempts) == (3, 2, 1)
    sent = next(b for b in stub.seen if b["prompt"] == "p3")
    assert sent == {"model": "small", "max_tokens": 8, "temperature": 0.5, "seed": 7, "stop": ["\n"], "prompt": "p3"}
    assert stub.headers[0]["Authorization"] == "Bearer secret" and "secret" not in repr(client(stub, api_key="secret"))
    assert client(stub).models() == ["small"]


def test_messages_go_to_the_chat_address(stub: Stub) -> None:
    stub.answer = lambda body, n: said(body, body["path"])
    assert client(stub).complete([[{"role": "user", "content": "x"}]], 4)[0].text == "/v1/chat/completions"
    assert client(stub).complete([], 4) == []


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_may_pass_is_tried_again(stub: Stub, status: int) -> None:
    stub.answer = lambda body, n: said(body) if n == 2 else (status, {}, b"busy")
    answer = client(stub).complete(["p"], 4)[0]
    assert (answer.text, answer.attempts) == ("P", 3)


def test_the_wait_grows_and_retry_after_is_kept(stub: Stub) -> None:
    stub.answer = lambda body, n: (429, {"Retry-After": "0.3"} if n == 0 else {}, b"") if n < 3 else said(body)
    client(stub, backoff_s=0.02).complete(["p"], 4)
    first, second, third = (b - a for a, b in zip(stub.times, stub.times[1:], strict=False))
    assert first >= 0.3 and second >= 0.02 and third >= 0.04


def test_a_server_that_stays_down_ends_in_a_clear_error(stub: Stub) -> None:
    stub.answer = lambda body, n: (503, {}, b"loading the model")
    with pytest.raises(
        LLMServerError, match=r"no answer in 3 attempts.*503.*loading the model.*Check that the server runs"
    ):
        client(stub, retries=2).complete(["p"], 4)
    assert len(stub.seen) == 3
    gone = LLMClient("http://127.0.0.1:9/v1", "small", retries=1, backoff_s=0.01)
    with pytest.raises(LLMServerError, match="connection failed"):
        gone.complete(["p"], 4)


@pytest.mark.parametrize("drip", [False, True])
def test_a_slow_answer_is_given_up(stub: Stub, drip: bool) -> None:
    def slow(body: dict, n: int) -> tuple[int, dict[str, str], bytes]:
        if n:
            return said(body)
        if not drip:
            time.sleep(1.0)
        return (200, {"Content-Length": "100", "X-Drip": "1"}, b"") if drip else said(body)

    stub.answer = slow
    began = time.monotonic()
    answer = client(stub, timeout_s=0.25).complete(["p"], 4)[0]
    assert (answer.text, answer.attempts) == ("P", 2) and time.monotonic() - began < 3


def test_a_body_that_breaks_off_is_tried_again(stub: Stub) -> None:
    def broken(body: dict, n: int) -> tuple[int, dict[str, str], bytes]:
        status, headers, content = said(body)
        return (
            (status, {"Content-Length": str(len(content) + 50), "Connection": "close"}, content)
            if n == 0
            else (status, headers, content)
        )

    stub.answer = broken
    assert client(stub, timeout_s=1.0).complete(["p"], 4)[0].attempts == 2


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"<html>nginx</html>", "<html>nginx</html>.*expected JSON.*base_url"),
        (b"", "an empty body.*expected JSON"),
        (b'{"error": "no"}', "error.*expected a text at choices"),
        (b"[1, 2]", "expected a text at choices"),
        (b'{"choices": [{"text": null}]}', "expected a text at choices"),
        (b"\xff\xfe\x00", "expected JSON"),
        (b'{"choices": [{"text": "\xff"}]}', "expected JSON in UTF-8"),
        (b'{"choices": [{"text": "a"}], "choices": [{"text": "b"}]}', "each name once in its object"),
    ],
)
def test_nonsense_is_named(stub: Stub, content: bytes, expected: str) -> None:
    stub.answer = lambda body, n: (200, {}, content)
    with pytest.raises(LLMServerError, match=expected):
        client(stub).complete(["p"], 4)
    assert len(stub.seen) == 1, "nonsense does not pass by itself"


@pytest.mark.parametrize(
    ("status", "hint"), [(401, "API key"), (404, "usually ends in /v1"), (400, "longer than the model")]
)
def test_a_refusal_is_not_repeated_and_says_what_to_check(stub: Stub, status: int, hint: str) -> None:
    stub.answer = lambda body, n: (status, {}, b'{"message": "no"}')
    with pytest.raises(LLMServerError, match=f"status {status}.*no.*{hint}"):
        client(stub).complete(["p"], 4)
    assert len(stub.seen) == 1


def test_one_bad_answer_need_not_lose_the_others(stub: Stub) -> None:
    stub.answer = lambda body, n: (400, {}, b"") if body["prompt"] == "p1" else said(body)
    good, bad, last = client(stub).complete(["p0", "p1", "p2"], 4, raising=False)
    assert good.text == "P0" and isinstance(bad, LLMServerError) and last.text == "P2"


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"base_url": "localhost:8000"}, "no http"),
        ({"concurrency": 0}, "at least 1"),
        ({"timeout_s": 0}, "at least 0.001"),
    ],
)
def test_settings_are_checked(settings: dict, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        LLMClient(**{"base_url": "http://x/v1", "model": "m", **settings})


# ---------------------------------------------------------------------- the prompt-only baseline

ITEMS = ["heart_rate_bpm", "culture//blood//aerobic", "heart_rate_bpm", "status"]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        (
            'heart_rate_bpm = 82\nculture//blood//aerobic = "negative"\nheart_rate_bpm = 84\nstatus = "stays"',
            (82, "negative", 84, "stays"),
        ),
        (
            "Sure!\n- **heart_rate_bpm**: 82 bpm\n- culture//blood//aerobic: negative\n- status: The patient stays.",
            (82, "negative", None, "stays"),
        ),
        ('```json\n{"heart_rate_bpm": [82, {"value": 84}], "status": "died"}\n```', (82, None, 84, "died")),
        ("| Heart Rate bpm | ~1,082 |\n| status | ? |", (1082, None, None, None)),
        ("82, negative, 84, stays", (82, "negative", 84, "stays")),
        ("I cannot answer that.", (None, None, None, None)),
        ("heart_rate_bpm = high", (None, None, None, None)),
        ("heart_rate_bpm = 1e99\nstatus = asleep", (None, None, None, None)),
        ("", (None, None, None, None)),
    ],
)
def test_answers_are_read_kindly_and_what_is_missing_counts(text: str, values: tuple) -> None:
    answer = parse_answer(text, ITEMS)
    assert tuple(a.label if a.value is None else a.value for a in answer.asked) == values
    assert answer.missing == values.count(None)
    assert [a.item for a in answer.asked] == ITEMS


def test_a_damaged_answer_is_read_as_far_as_it_can_be_and_never_raises() -> None:
    dice = random.Random(0)
    written = (
        'heart_rate_bpm = 82\nculture//blood//aerobic = "negative"\nheart_rate_bpm = 84\nstatus = "stays"',
        '```json\n{"heart_rate_bpm": [82, {"value": 84}], '
        '"culture//blood//aerobic": "negative", "status": "died"}\n```',
    )
    for text in written:
        whole = parse_answer(text, ITEMS)
        assert whole.missing == 0
        for _ in range(400):
            damaged = list(text)
            for _ in range(dice.randint(1, 4)):
                place = dice.randrange(len(damaged))
                damaged[place : place + dice.randint(0, 3)] = dice.choice(
                    ["", "{", "}", '"', "=", ":", "\n", "\\", "9" * 400, "\x00"]
                )
            found = parse_answer("".join(damaged), ITEMS)
            assert [a.item for a in found.asked] == ITEMS and found.missing == sum(not a.known for a in found.asked)
            assert all(a.value is None or abs(a.value) <= LARGEST for a in found.asked)
            status = found.asked[-1].label
            assert not status or status in STATUSES


def test_the_baseline_asks_and_counts(stub: Stub) -> None:
    so_far = stay(1)
    orders = NarrativeStep(9, (AskedItem("heart_rate_bpm"), AskedItem("status")))
    messages = prompt(so_far, orders, last_steps=2)
    text = messages[1]["content"]
    assert (
        "hour 36\nask | heart_rate_bpm | status" in text and text.count("hour ") == 3 and "heart_rate_bpm = ?" in text
    )
    stub.answer = lambda body, n: said(body, "heart_rate_bpm = 91") if "hour 36" in str(body) else (400, {}, b"")
    llm = PromptLLM(server(client(stub)))
    first, second = llm.step([so_far, so_far], [orders, orders._replace(number=8)])
    assert first.asked == (AskedItem("heart_rate_bpm", 91.0, None, "bpm"), AskedItem("status"))
    assert second.asked == orders.asked, "a failed request leaves its outcomes unknown"
    assert (llm.inquiries, llm.missing, llm.failed) == (4, 3, 1)


def test_a_text_to_go_on_with(stub: Stub) -> None:
    orders = NarrativeStep(9, (AskedItem("heart_rate_bpm"), AskedItem("status")))
    stub.answer = lambda body, n: said(body, '91\nstatus = "died"\nhour 40\nheart_rate_bpm = 7\n')
    llm = PromptLLM(server(client(stub)), style="continue")
    assert llm.step([stay(1)], [orders])[0].asked == (
        AskedItem("heart_rate_bpm", 91.0, None, "bpm"),
        AskedItem("status", label="died"),
    )
    assert stub.seen[0]["prompt"].endswith("hour 36\nask | heart_rate_bpm | status\nheart_rate_bpm = ")
    with pytest.raises(ValueError, match="there are: chat, continue"):
        PromptLLM(llm.backend, style="ask")


def test_a_local_model_needs_its_extra_and_says_so(tmp_path) -> None:  # noqa: ANN001
    if importlib.util.find_spec("xllamacpp") is None:
        with pytest.raises(ImportError, match=r"clinenv\[gguf\]"):
            gguf()
    else:
        with pytest.raises(FileNotFoundError, match="give a GGUF file"):
            gguf(tmp_path / "none.gguf")
