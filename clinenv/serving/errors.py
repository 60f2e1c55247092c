"""What the server says when a request cannot be carried out: one sentence with the value, the limit and the remedy."""

from __future__ import annotations

__all__ = ["Ended", "Full", "Garbled", "Late", "Refused", "ServeError", "Unknown", "shown"]

_LONGEST = 80  # characters of a value that an error repeats


class ServeError(Exception):
    """A refusal. `status` is HTTP's, `code` one of OpenEnv's for its WebSocket (`WSErrorCode`)."""

    status = 500
    code = "EXECUTION_ERROR"
    retry_after_s: int | None = None


class Refused(ServeError):
    """The request is understood and is none that can be carried out; nothing has changed."""

    status = 422
    code = "VALIDATION_ERROR"


class Garbled(Refused):
    """No JSON, or none of ours."""

    code = "INVALID_JSON"


class Unknown(ServeError):
    """No such session, or it has ended."""

    status = 404
    code = "SESSION_ERROR"


class Ended(ServeError):
    """The session is there, but cannot do this now."""

    status = 409


class Full(ServeError):
    """The server has no room; the request may be put again."""

    status = 503
    code = "CAPACITY_REACHED"
    retry_after_s = 5


class Late(ServeError):
    """It took too long."""

    status = 504


def shown(value: object) -> str:
    """A value as an error repeats it: its beginning, in one line."""
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
