"""The headers of a call: those of the client and of the call, credentials, and the trace."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

__all__ = ["HeaderSource", "Headers", "Metadata", "Token", "call_headers", "trace_headers"]

Metadata = tuple[tuple[str, str | bytes], ...]
HeaderSource = Mapping[str, str | bytes] | Callable[[], Mapping[str, str | bytes]]
Token = str | Callable[[], str]

# gRPC over HTTP/2, "Custom-Metadata".
_NAME: Final = re.compile(r"[0-9a-z_.-]+")
_TEXT: Final = re.compile(rb"[\x20-\x7e]*")


class Headers:
    """The headers of every call. No value appears in its ``repr`` or in an error.

    Where headers or the token are a function, it is called before every attempt of a call.

    Raises:
        ValueError: A header cannot be sent over HTTP/2.
    """

    __slots__ = ("_fixed", "_headers", "_token")

    def __init__(
        self,
        headers: HeaderSource | None = None,
        token: Token | None = None,
        protocol_keys: Mapping[str, str] | None = None,
    ) -> None:
        fixed = _checked(
            {f"triton-grpc-protocol-{key}": value for key, value in (protocol_keys or {}).items()}
        )
        self._headers = headers if callable(headers) else None
        self._token = token if callable(token) else None
        if headers is not None and not callable(headers):
            fixed += _checked(headers)
        if token is not None and not callable(token):
            fixed += _bearer(token)
        self._fixed = fixed

    def current(self, own: Metadata = ()) -> Metadata | None:
        """Return the headers of the next attempt, ``None`` for none.

        The call's own replace those of the same name.

        Raises:
            ValueError: A function gave what cannot be sent over HTTP/2.
            Exception: What a function raised.
        """
        found = self._fixed
        if self._headers is not None:
            found += _checked(self._headers())
        if self._token is not None:
            found += _bearer(self._token())
        if own:
            names = {name for name, _ in own}
            found = tuple(header for header in found if header[0] not in names) + own
        trace = trace_headers()
        if trace and not any(name == "traceparent" for name, _ in found):
            found += trace
        return found or None


def trace_headers() -> Metadata:
    """Return the W3C trace context of the current span, where the application uses OpenTelemetry.

    Nothing where it has not imported ``opentelemetry.trace``, where there is no span, and where the
    span is not sampled.
    """
    trace: Any = sys.modules.get("opentelemetry.trace")
    current_span = getattr(trace, "get_current_span", None)
    if current_span is None:
        return ()
    context = current_span().get_span_context()
    if not (context.is_valid and context.trace_flags.sampled):
        return ()
    flags = int(context.trace_flags)
    parent = ("traceparent", f"00-{context.trace_id:032x}-{context.span_id:016x}-{flags:02x}")
    state = context.trace_state.to_header()
    return (parent, ("tracestate", state)) if state else (parent,)


def call_headers(headers: Mapping[str, str | bytes] | None) -> Metadata:
    """Return the headers of one call.

    Raises:
        ValueError: A header cannot be sent over HTTP/2.
    """
    return _checked(headers) if headers else ()


def _bearer(token: str) -> Metadata:
    return _checked({"authorization": f"Bearer {token}"})


def _checked(headers: Mapping[str, str | bytes]) -> Metadata:
    return tuple(_header(name.lower(), value) for name, value in headers.items())


def _header(name: str, value: str | bytes) -> tuple[str, str | bytes]:
    """Return a header that gRPC takes; its own error would show the value."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a header's name; use letters, digits and - _ .")
    if name.endswith("-bin"):
        if isinstance(value, bytes):
            return name, value
        raise ValueError(f"the header {name!r} takes bytes, for its name ends in -bin")
    if not isinstance(value, str | bytes):
        raise ValueError(f"the header {name!r} takes text, not {type(value).__name__}")  # noqa: TRY004
    raw = value if isinstance(value, bytes) else value.encode(errors="replace")
    if not _TEXT.fullmatch(raw):
        raise ValueError(
            f"the header {name!r} has characters other than printable ASCII, perhaps a line break "
            "at its end; strip them, or send bytes under a name that ends in -bin"
        )
    return name, value
