"""The trace that a call belongs to, where the application uses OpenTelemetry."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["trace_headers"]


def trace_headers() -> tuple[tuple[str, str], ...]:
    """Return the W3C trace context of the current span.

    Nothing where the application has not imported ``opentelemetry.trace``, where there is no span,
    and where the span is not sampled.
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
