"""Completions from any server that speaks OpenAI's API (vLLM, SGLang, llama.cpp, ...): many at once, with retries.

Standard library only. A GPU server for a trained checkpoint is started with its own command, for instance
`vllm serve FOLDER --port 8000` or `python -m sglang.launch_server --model-path FOLDER --port 8000`; the client then
takes base_url="http://localhost:8000/v1".
"""

from __future__ import annotations

import json
import logging
import time
import urllib.parse
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple, NoReturn

from world_models.ehr_world.causal_lm import http as llm_http

__all__ = ["Completion", "LLMClient", "LLMServerError", "Message"]

Message = dict[str, str]  # {"role": "system" | "user" | "assistant", "content": ...}
_log = logging.getLogger(__name__)
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
_HINTS = {
    400: "the request was refused: is the prompt longer than the model's context, or an option unknown to this server?",
    401: "check the API key",
    403: "check the API key and what it may use",
    404: "check base_url (it usually ends in /v1) and the model's name (LLMClient.models() lists those served)",
    413: "the prompt is too large for this server",
    422: "an option or a message has a form this server does not take",
}


class LLMServerError(RuntimeError):
    """No usable answer: the message says what came, what was expected and what to check."""

    status: int | None = None  # of the refusal, where the server refused


class Completion(NamedTuple):
    """A model's answer to one prompt, and what it took."""

    text: str
    finish_reason: str  # "stop", "length", ...; "" where the server does not say
    prompt_tokens: int | None  # as the server counts
    completion_tokens: int | None
    seconds: float  # from the first attempt to the answer
    attempts: int


class _Said(NamedTuple):
    value: Any  # the answer's JSON
    text: str


class _Later(Exception):
    """An attempt failed in a way that may pass; after `wait_s` at least, if the server said so."""

    def __init__(self, what: str, wait_s: float = 0.0) -> None:
        super().__init__(what)
        self.wait_s = wait_s


@dataclass(frozen=True)
class LLMClient:
    """A server and how it is asked.

    Nothing but LLMServerError comes out of what a server does: an answer too slow, too long or no answer at all, a
    redirect (never followed: the API key would go with it), or JSON of any other form.

    Raises:
        ValueError: a base_url that is no http(s) address, a key that no header can hold, or a number off limits.
    """

    base_url: str  # "http://localhost:8000/v1"
    model: str  # the name it is served under
    api_key: str | None = None
    concurrency: int = 64  # requests at a time; the paper's benchmark has 64
    timeout_s: float = 120.0  # of one attempt, from connecting to the last byte
    most_bytes: int = 1 << 24  # of one answer, headers included
    retries: int = 5  # after the first attempt
    backoff_s: float = 0.5  # before the first retry; doubles
    longest_wait_s: float = 30.0  # between two attempts, whatever the server asks for

    def __post_init__(self) -> None:
        _check_address(self.base_url)
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.isprintable()):
            raise ValueError(
                f"api_key, {len(self.api_key)} characters, holds a line break or another character that no HTTP header "
                "can carry; give the key alone (a key read from a file ends in a line break: strip it)"
            )
        limits = {
            "concurrency": (1, 10_000),
            "retries": (0, 1_000),
            "timeout_s": (1e-3, 86_400),
            "most_bytes": (1, 1 << 32),
            "backoff_s": (0, 86_400),
            "longest_wait_s": (0, 86_400),
        }
        for name, (least, most) in limits.items():
            value = getattr(self, name)
            if not isinstance(value, int | float) or not least <= value <= most:
                raise ValueError(f"{name}={value!r} must be a number of at least {least} and at most {most}")

    def __repr__(self) -> str:
        return f"LLMClient({self.base_url!r}, {self.model!r})"  # never the key

    def models(self) -> list[str]:
        """Names of the models that are served. Raises LLMServerError."""
        said, _ = self._ask("models", None, 0)
        try:
            names = [entry["id"] for entry in said.value["data"]]
        except (KeyError, TypeError):
            names = [None]
        if not all(isinstance(name, str) for name in names):
            raise self._nonsense("models", said.text, 'an object with "data", a list of objects with "id"')
        return names

    def complete(
        self,
        prompts: Sequence[str | Sequence[Message]],
        max_tokens: int,
        temperature: float = 0.0,
        seed: int | None = None,
        stop: Sequence[str] = (),
        raising: bool = True,
        **options: Any,
    ) -> list[Completion | LLMServerError]:
        """One completion a prompt, in the prompts' order, `concurrency` at a time.

        Args:
            prompts: a text each (asked at /completions), or messages (at /chat/completions).
            raising: False puts an error in the place of its answer, so that one bad answer does not lose the others.
            options: further fields of the request (`guided_regex` of vLLM, `regex` of SGLang, ...).

        Raises:
            LLMServerError: an answer could not be had; requests that have not begun are dropped.
            ValueError: `prompts` is no list, or a prompt or an option cannot be written as JSON.
        """
        if isinstance(prompts, str) or not isinstance(prompts, Sequence):
            raise ValueError(f"prompts is a {type(prompts).__name__}; give a list of prompts")
        fixed: dict[str, Any] = {"model": self.model, "max_tokens": max_tokens, "temperature": temperature, **options}
        if seed is not None:
            fixed["seed"] = seed
        if stop:
            fixed["stop"] = list(stop)

        chat = [not isinstance(prompt, str) for prompt in prompts]
        bodies = [
            _written({**fixed, "messages" if talk else "prompt": prompt})
            for prompt, talk in zip(prompts, chat, strict=True)
        ]

        def one(place: int) -> Completion | LLMServerError:
            try:
                return self._complete(bodies[place], chat[place], place)
            except LLMServerError as error:
                if raising:
                    raise
                return error

        if not prompts:
            return []
        with ThreadPoolExecutor(min(self.concurrency, len(prompts)), thread_name_prefix="llm") as pool:
            futures = [pool.submit(one, place) for place in range(len(prompts))]
            try:
                return [future.result() for future in futures]
            finally:
                for future in futures:
                    future.cancel()

    def _complete(self, body: bytes, chat: bool, place: int) -> Completion:
        path = "chat/completions" if chat else "completions"
        began = time.monotonic()
        said, attempts = self._ask(path, body, place)
        try:
            choice = said.value["choices"][0]
            text = choice["message"]["content"] if chat else choice["text"]
        except (KeyError, IndexError, TypeError):
            text = None
        if not isinstance(text, str):
            where = 'choices[0]["message"]["content"]' if chat else 'choices[0]["text"]'
            raise self._nonsense(path, said.text, f"a text at {where}")
        text = text.encode("utf-8", errors="replace").decode()  # half a surrogate pair could be written nowhere
        usage = said.value.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        asked, written = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
        finish = choice.get("finish_reason")
        finish = finish if isinstance(finish, str) else ""
        return Completion(text, finish, asked, written, time.monotonic() - began, attempts)

    def _nonsense(self, path: str, came: str, expected: str) -> LLMServerError:
        return LLMServerError(
            f"{self._url(path)} answered with {self._excerpt(came)}; expected {expected}. Check that this address is "
            "an OpenAI-compatible API (base_url usually ends in /v1) and not a web page or a proxy before it"
        )

    def _url(self, path: str) -> str:
        return f"{self.base_url.rstrip('/')}/{path}"

    def _ask(self, path: str, body: bytes | None, place: int) -> tuple[_Said, int]:
        """What was said, and in which attempt; retries what may pass."""
        attempt = 0
        while True:
            try:
                return self._attempt(path, body), attempt + 1
            except _Later as error:
                if attempt == self.retries:
                    raise LLMServerError(
                        f"{self._url(path)} gave no answer in {attempt + 1} attempts; the last: {error}. Check that "
                        "the server runs and is not overloaded; lower concurrency, or raise timeout_s or retries"
                    ) from None
                # requests that failed together must not come back together: a share that differs by request
                share = zlib.crc32(f"{place}/{attempt}".encode()) / 2**32
                doubled = self.backoff_s * 2.0 ** min(attempt, 64) * (0.5 + share)
                wait = min(self.longest_wait_s, max(error.wait_s, doubled))
                _log.warning("%s: %s; attempt %d follows in %.1f s", self._url(path), error, attempt + 2, wait)
                time.sleep(wait)
            attempt += 1

    def _attempt(self, path: str, body: bytes | None) -> _Said:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        try:
            answer = llm_http.request(self._url(path), body, headers, self.timeout_s, self.most_bytes)
        except llm_http.NoAnswer as error:
            raise _Later(self._excerpt(str(error), quoted=False)) from None
        except llm_http.TooLong:
            raise LLMServerError(
                f"{self._url(path)} answered with more than {self.most_bytes} bytes, which were not read; expected "
                "JSON. Check that this address is an OpenAI-compatible API; if its answers are so long, raise "
                "most_bytes"
            ) from None
        text = answer.body.decode("utf-8", errors="replace")  # to be shown
        if not 200 <= answer.status < 300:
            self._refused(path, answer, text)
        try:
            return _Said(json.loads(answer.body.decode("utf-8"), object_pairs_hook=_once), text)
        except (ValueError, RecursionError):  # nested deeper than Python reads
            raise self._nonsense(path, text, "JSON in UTF-8, each name once in its object") from None

    def _refused(self, path: str, answer: llm_http.Reply, text: str) -> NoReturn:
        what = f"status {answer.status} ({self._excerpt(answer.reason, 80, quoted=False)}): {self._excerpt(text)}"
        if answer.status in _AGAIN or answer.status >= 500:
            raise _Later(what, _retry_after(answer.headers.get("Retry-After")))
        hint = _HINTS.get(answer.status, "the server does not take this request")
        if 300 <= answer.status < 400:
            hint = (
                f"it sends on to {self._excerpt(answer.headers.get('Location', ''))}, which is not followed, as the "
                "API key would go there: if that address is the server's own, give it as base_url"
            )
        error = LLMServerError(f"{self._url(path)} answered with {what}; expected 200 with a completion; {hint}")
        error.status = answer.status
        raise error

    def _excerpt(self, text: str, length: int = 200, quoted: bool = True) -> str:
        """The beginning of what a server said, in one line; an API key that the server repeats is not logged."""
        if self.api_key:
            text = text.replace(self.api_key, "[the API key]")
        text = " ".join(text.split())
        if not text:
            return "an empty body" if quoted else ""
        more = f" ... ({len(text)} characters)" if len(text) > length else ""
        return (repr(text[:length]) if quoted else repr(text[:length])[1:-1]) + more


def _count(said: Any) -> int | None:
    return said if type(said) is int and said >= 0 else None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these pairs. Raises ValueError: a name is there twice, and two readers would read two answers."""
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a name is there twice")
    return made


def _check_address(base_url: str) -> None:
    """Raises ValueError; an address with a password in it is not repeated."""
    try:
        address = urllib.parse.urlsplit(base_url)
        secret = address.username is not None or address.password is not None
        (address.hostname or "").encode("idna")
        usable = address.scheme in ("http", "https") and address.hostname and address.port != 0
    except (ValueError, AttributeError, TypeError):  # a port that is no number, a host name that cannot be one
        usable = secret = False
    if secret:
        raise ValueError("base_url holds a user name or password before '@'; take them out and give api_key")
    plain = usable and base_url.isascii() and base_url.isprintable() and " " not in base_url
    if not plain or address.query or address.fragment:
        raise ValueError(f"base_url={base_url!r} is no http or https address, such as http://localhost:8000/v1")


def _written(request: dict[str, Any]) -> bytes:
    """A request as JSON. Raises ValueError."""
    try:
        if "messages" in request:
            request = {**request, "messages": list(request["messages"])}
        return json.dumps(request, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"the request cannot be written as JSON ({error}): prompts must be texts or lists of messages, and options "
            "of numbers, texts, lists and dicts"
        ) from None


def _retry_after(header: str | None) -> float:
    """Seconds that a Retry-After header asks for: a number, or a date."""
    if not header:
        return 0.0
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except (TypeError, ValueError, IndexError, OverflowError, OSError):
        return 0.0
