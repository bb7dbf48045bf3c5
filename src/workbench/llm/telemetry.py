"""One OpenTelemetry span per model call, sent by OTLP; texts of prompts and answers never are.

Source:
    Semantic conventions for generative AI, https://opentelemetry.io/docs/specs/semconv/gen-ai/.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from workbench.core.errors import ConfigError
from workbench.core.settings import Settings
from workbench.llm.messages import Answer, Request

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

    from workbench.llm.router import Route

__all__ = ["ChatSpan", "Spans", "spans"]

_PROVIDERS = {"bedrock": "aws.bedrock", "aws": "aws.bedrock", "vertex": "gcp.vertex_ai"}
_CLOSE_S = 5.0
"""Longest wait, in all, for a collector that does not answer."""


class ChatSpan:
    """The span of one call in flight; of none where nobody listens."""

    def __init__(self, span: Span | None) -> None:
        self._span = span

    def end(self, answer: Answer) -> None:
        """Note what came back."""
        if self._span is None:
            return
        usage = answer.usage
        written = usage.cache_write_5m_tokens + usage.cache_write_1h_tokens
        self._span.set_attributes(
            {
                "gen_ai.response.model": answer.model,
                "gen_ai.response.finish_reasons": [answer.stop_reason],
                "gen_ai.usage.input_tokens": usage.prompt_tokens,
                "gen_ai.usage.output_tokens": usage.output_tokens,
                "gen_ai.usage.cache_read.input_tokens": usage.cache_read_tokens,
                "gen_ai.usage.cache_creation.input_tokens": written,
                "workbench.outcome": answer.outcome,
                "workbench.cost_usd": float(answer.usd),
            }
        )


_NO_SPAN: AbstractContextManager[ChatSpan] = nullcontext(ChatSpan(None))


class Spans:
    """Makes spans; without a collector to send them to it does nothing."""

    def __init__(self, provider: TracerProvider | None, attributes: Mapping[str, str]) -> None:
        self._provider = provider
        self._tracer = provider and provider.get_tracer("workbench.llm")
        self._attributes = dict(attributes)

    def chat(self, request: Request, route: Route) -> AbstractContextManager[ChatSpan]:
        """Return the span of a call, open inside a ``with``; an error that leaves it is noted."""
        return self._chat(request, route) if self._tracer else _NO_SPAN

    def close(self) -> None:
        """Send what is left; wait no longer than 5 s."""
        if self._provider:  # the SDK's own time limits do not hold for an export in progress
            closing = threading.Thread(target=self._provider.shutdown, daemon=True)
            closing.start()
            closing.join(_CLOSE_S)

    @contextmanager
    def _chat(self, request: Request, route: Route) -> Iterator[ChatSpan]:
        from opentelemetry.trace import SpanKind, StatusCode

        assert self._tracer
        with self._tracer.start_as_current_span(
            f"chat {route.model}",
            kind=SpanKind.CLIENT,
            attributes=self._attributes
            | {"gen_ai.request.model": route.model, "workbench.task": request.task},
            record_exception=False,  # its message may quote what a model said
            set_status_on_exception=False,
        ) as span:
            try:
                yield ChatSpan(span)
            except BaseException as error:
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(StatusCode.ERROR)
                raise


def spans(settings: Settings, *, provider: str = "", phase: str = "") -> Spans:
    """Return what makes spans: for the collector that the settings name, if it may be reached.

    Args:
        settings: Name the collector, and the run that spends.
        provider: Whom the calls go to.
        phase: What the calls are for.

    Raises:
        ConfigError: If a collector is named and the extra ``telemetry`` is not installed.
    """
    if not settings.otlp_endpoint or not settings.may_connect(settings.otlp_endpoint):
        return Spans(None, {})
    provider = _PROVIDERS.get(provider, provider)
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": provider,
        "gen_ai.system": provider,  # its older name, which some collectors still look for
        "workbench.phase": phase,
        "workbench.job": settings.run_id,
        "workbench.experiment": settings.experiment,
    }
    return Spans(_otlp(settings.otlp_endpoint), attributes)


def _otlp(endpoint: str) -> TracerProvider:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise ConfigError(
            "OTEL_EXPORTER_OTLP_ENDPOINT: pip install 'prompt-safety-workbench[telemetry]', or"
            " unset it"
        ) from None
    resource = Resource.create({"service.name": "prompt-safety-workbench"})
    # its own hook at exit would wait for a dead collector without a limit
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=_CLOSE_S)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider
