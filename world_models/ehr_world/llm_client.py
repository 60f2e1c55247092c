"""Completions from any server that speaks OpenAI's API (vLLM, SGLang, llama.cpp, ...): many at once, with retries.

Standard library only. A GPU server for a trained checkpoint is started with its own command, for instance
`vllm serve FOLDER --port 8000` or `python -m sglang.launch_server --model-path FOLDER --port 8000`; the client then
takes base_url="http://localhost:8000/v1".
"""

from __future__ import annotations

import http.client
import json
import logging
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

__all__ = ["Completion", "LLMClient", "LLMServerError", "Message"]

Message = dict[str, str]  # {"role": "system" | "user" | "assistant", "content": ...}
_log = logging.getLogger(__name__)
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
_HINTS = {
    400: "the request was refused: is the prompt longer than the model's context, or an option unknown to this server?",
    401: "check the API key", 403: "check the API key and what it may use",
    404: "check base_url (it usually ends in /v1) and the model's name (LLMClient.models() lists those served)",
    413: "the prompt is too large for this server", 422: "an option or a message has a form this server does not take",
}  # fmt: skip


class LLMServerError(RuntimeError):
    """No usable answer: the message says what came, what was expected and what to check."""


class Completion(NamedTuple):
    text: str
    finish_reason: str  # "stop", "length", ...; "" where the server does not say
    prompt_tokens: int | None  # as the server counts
    completion_tokens: int | None
    seconds: float  # from the first attempt to the answer
    attempts: int


class _Later(Exception):
    """An attempt failed in a way that may pass; after `wait_s` at least, if the server said so."""

    def __init__(self, what: str, wait_s: float = 0.0) -> None:
        super().__init__(what)
        self.wait_s = wait_s


@dataclass(frozen=True)
class LLMClient:
    """A server and how it is asked.

    Raises:
        ValueError: a base_url that is no http(s) address, or a number outside its limits.
    """

    base_url: str  # "http://localhost:8000/v1"
    model: str  # the name it is served under
    api_key: str | None = None
    concurrency: int = 64  # requests at a time; the paper's benchmark has 64
    timeout_s: float = 120.0  # of one attempt, from connecting to the last byte
    retries: int = 5  # after the first attempt
    backoff_s: float = 0.5  # before the first retry; doubles
    longest_wait_s: float = 30.0  # between two attempts, whatever the server asks for

    def __post_init__(self) -> None:
        address = urllib.parse.urlsplit(self.base_url)
        if address.scheme not in ("http", "https") or not address.netloc:
            raise ValueError(
                f"base_url={self.base_url!r} is no http or https address, such as http://localhost:8000/v1"
            )
        for name, least in (("concurrency", 1), ("retries", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} must be at least {least}")
        if not self.timeout_s > 0:
            raise ValueError(f"timeout_s={self.timeout_s} must be above 0")

    def __repr__(self) -> str:
        return f"LLMClient({self.base_url!r}, {self.model!r})"  # never the key

    def models(self) -> list[str]:
        """Names of the models that are served. Raises LLMServerError."""
        answer, _, _ = self._ask("models", None, 0)
        try:
            return [str(entry["id"]) for entry in answer["data"]]
        except (KeyError, TypeError):
            raise self._nonsense("models", answer, 'an object with "data", a list of objects with "id"') from None

    def complete(
        self, prompts: Sequence[str | Sequence[Message]], max_tokens: int, temperature: float = 0.0,
        seed: int | None = None, stop: Sequence[str] = (), raising: bool = True, **options: Any,
    ) -> list[Completion | LLMServerError]:  # fmt: skip
        """One completion a prompt, in the prompts' order, `concurrency` at a time.

        Args:
            prompts: a text each (asked at /completions), or messages (at /chat/completions).
            raising: False puts an error in the place of its answer, so that one bad answer does not lose the others.
            options: further fields of the request (`guided_regex` of vLLM, `regex` of SGLang, ...).

        Raises:
            LLMServerError: an answer could not be had; requests that have not begun are dropped.
        """
        fixed: dict[str, Any] = {"model": self.model, "max_tokens": max_tokens, "temperature": temperature, **options}
        if seed is not None:
            fixed["seed"] = seed
        if stop:
            fixed["stop"] = list(stop)

        def one(place: int) -> Completion | LLMServerError:
            try:
                return self._complete(prompts[place], fixed, place)
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

    def _complete(self, prompt: str | Sequence[Message], fixed: dict[str, Any], place: int) -> Completion:
        chat = not isinstance(prompt, str)
        path = "chat/completions" if chat else "completions"
        began = time.monotonic()
        answer, attempts, _ = self._ask(
            path, {**fixed, **({"messages": list(prompt)} if chat else {"prompt": prompt})}, place
        )
        try:
            choice = answer["choices"][0]
            text = choice["message"]["content"] if chat else choice["text"]
        except (KeyError, IndexError, TypeError):
            text = None
        if not isinstance(text, str):
            where = 'choices[0]["message"]["content"]' if chat else 'choices[0]["text"]'
            raise self._nonsense(path, answer, f"a text at {where}")
        usage = answer.get("usage") if isinstance(answer.get("usage"), dict) else {}
        counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
        counts = [n if isinstance(n, int) else None for n in counts]
        return Completion(text, str(choice.get("finish_reason") or ""), *counts, time.monotonic() - began, attempts)

    def _nonsense(self, path: str, answer: object, expected: str) -> LLMServerError:
        came = answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
        return LLMServerError(
            f"{self._url(path)} answered with {_excerpt(came)}; expected {expected}. Check that this address is an "
            "OpenAI-compatible API (base_url usually ends in /v1) and not a web page or a proxy before it"
        )

    def _url(self, path: str) -> str:
        return f"{self.base_url.rstrip('/')}/{path}"

    def _ask(self, path: str, body: dict[str, Any] | None, place: int) -> tuple[Any, int, float]:
        """(answer, attempts, seconds waited); retries what may pass."""
        waited = 0.0
        for attempt in range(self.retries + 1):
            try:
                return self._attempt(path, body), attempt + 1, waited
            except _Later as error:
                if attempt == self.retries:
                    raise LLMServerError(
                        f"{self._url(path)} gave no answer in {attempt + 1} attempts; the last: {error}. Check that the "
                        "server runs and is not overloaded; lower concurrency, or raise timeout_s or retries"
                    ) from None
                # requests that failed together must not come back together: a share that differs by request
                share = zlib.crc32(f"{place}/{attempt}".encode()) / 2**32
                wait = min(self.longest_wait_s, max(error.wait_s, self.backoff_s * 2**attempt * (0.5 + share)))
                _log.warning("%s: %s; attempt %d follows in %.1f s", self._url(path), error, attempt + 2, wait)
                time.sleep(wait)
                waited += wait
        raise AssertionError("unreachable")

    def _attempt(self, path: str, body: dict[str, Any] | None) -> Any:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url(path), data, headers)
        deadline = time.monotonic() + self.timeout_s
        try:
            with urllib.request.urlopen(request, timeout=self.timeout_s) as response:
                raw = _read(response, deadline)
        except urllib.error.HTTPError as error:
            self._refused(path, error)
        except TimeoutError:
            raise _Later(f"no answer within {self.timeout_s:g} s") from None
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, TimeoutError):
                raise _Later(f"no answer within {self.timeout_s:g} s") from None
            raise _Later(f"the connection failed ({type(reason).__name__}: {reason})") from None
        text = raw.decode("utf-8", errors="replace")
        try:
            return json.loads(text)
        except ValueError:
            raise self._nonsense(path, text, "JSON") from None

    def _refused(self, path: str, error: urllib.error.HTTPError) -> None:
        try:
            body = error.read(4096).decode("utf-8", errors="replace")
        except (OSError, http.client.HTTPException):
            body = ""
        what = f"status {error.code} ({error.reason}): {_excerpt(body)}"
        if error.code in _AGAIN or error.code >= 500:
            raise _Later(what, _retry_after(error.headers.get("Retry-After"))) from None
        hint = _HINTS.get(error.code, "the server does not take this request")
        raise LLMServerError(
            f"{self._url(path)} answered with {what}; expected 200 with a completion; {hint}"
        ) from None


def _read(response: Any, deadline: float) -> bytes:
    """The whole body; a socket's own time-out starts anew with every byte, so a slow drip would never end."""
    parts = []
    while True:
        part = response.read1(1 << 16)
        if not part:
            break
        parts.append(part)
        if time.monotonic() > deadline:
            raise TimeoutError
    whole = b"".join(parts)
    if response.length:  # bytes that were announced and did not come
        raise http.client.IncompleteRead(whole, response.length)
    return whole


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
    except (TypeError, ValueError):
        return 0.0


def _excerpt(text: str, length: int = 200) -> str:
    text = " ".join(text.split())
    return (
        repr(text[:length]) + (f" ... ({len(text)} characters)" if len(text) > length else "")
        if text
        else "an empty body"
    )
