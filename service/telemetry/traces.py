"""Optional OpenTelemetry spans of scoring requests; needs the extra `traces`.

OpenTelemetry's own variables (OTEL_EXPORTER_OTLP_ENDPOINT and others) say where the spans go.
"""

import time
from typing import Any

from service.telemetry.logs import Call


class Traces:
    """Exports one span per request, with its stages parse, queue, encode and infer as child spans.

    Raises:
        ValueError: the packages are not installed.
    """

    def __init__(self) -> None:
        try:
            from opentelemetry import trace
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace.span import TraceState
        except ImportError as error:
            raise ValueError(
                f"RECGUARD_TRACES needs the extra traces: pip install 'recguard[traces]' ({error})"
            ) from error
        self.api: Any = trace
        self.no_state = TraceState()
        self.provider = TracerProvider(resource=Resource.create({"service.name": "recguard"}))
        self.provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self.tracer = self.provider.get_tracer("recguard")

    def record(self, call: Call, route: str, status: int) -> None:
        """Exports the spans of an answered request, unless its caller does not record its trace."""
        if call.parent and not call.sampled:
            return
        epoch = time.time() - time.perf_counter()

        def nanoseconds(at: float) -> int:
            return int(1e9 * (at + epoch))

        context = None
        if call.trace and call.parent:
            flags = self.api.TraceFlags(self.api.TraceFlags.SAMPLED)
            parent = self.api.SpanContext(int(call.trace, 16), int(call.parent, 16), True, flags, self.no_state)
            context = self.api.set_span_in_context(self.api.NonRecordingSpan(parent))
        whole = self.tracer.start_span(
            f"POST {route}",
            context,
            kind=self.api.SpanKind.SERVER,
            start_time=nanoseconds(call.start),
            attributes={
                "http.route": route,
                "http.response.status_code": status,
                "recguard.request_id": call.id,
                "recguard.sequences": call.sequences,
            },
        )
        below = self.api.set_span_in_context(whole)
        for name, start, end in call.spans or ():
            self.tracer.start_span(name, below, start_time=nanoseconds(start)).end(nanoseconds(end))
        whole.end(nanoseconds(time.perf_counter()))

    def close(self) -> None:
        """Sends the spans that are still waiting."""
        self.provider.shutdown()
