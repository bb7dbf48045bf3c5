"""Any server that speaks OpenAI's chat completions: OpenAI itself, vLLM, Ollama, llama.cpp."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from workbench.llm.faults import Exchange
from workbench.llm.messages import Fault, Reply, Request, Usage
from workbench.llm.sdk import SdkTransport, events_of
from workbench.llm.transport import Sending

__all__ = ["OpenAITransport", "payload"]

_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "content_filter": "refusal"}


def payload(request: Request, sending: Sending) -> dict[str, Any]:
    """Return the body of a chat completion, but for the limit on its tokens.

    These services cache prompts by themselves, so ``prompt_cache`` changes nothing.
    """
    system = [{"role": "system", "content": request.system}] if request.system else []
    body: dict[str, Any] = {
        "model": sending.model,
        "messages": [
            *system,
            *({"role": role, "content": text} for role, text in request.history),
            {"role": "user", "content": request.prompt},
        ],
    }
    if request.schema:
        schema = {"name": "answer", "schema": dict(request.schema), "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if sending.on_text:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return body


class OpenAITransport(SdkTransport):
    """Chat completions at OpenAI or, by ``base_url``, at any compatible server."""

    provider = "openai"
    _package = "openai"
    _client_class = "AsyncOpenAI"
    _needs = ("openai", "openai")
    _own_address = "https://api.openai.com/v1"
    _key_variable = "OPENAI_API_KEY"

    async def send(self, request: Request, sending: Sending) -> Reply | Fault:
        """Send once, without retries; give what came back. To pre-warm, nothing is sent.

        Raises:
            InputError: If the SDK refuses to send the request.
            ConfigError: If OpenAI itself is asked without a key. In both cases nothing was sent.
        """
        if sending.prewarm:
            return Reply(text="", stop_reason="max_tokens", usage=Usage(), model=sending.model)
        body = payload(request, sending)
        # OpenAI's newer models refuse the one name, older servers do not know the other
        is_own = self._base_url == self._own_address
        body["max_completion_tokens" if is_own else "max_tokens"] = request.max_tokens

        async def call(client: Any, exchange: Exchange) -> Reply | Fault:
            create = client.chat.completions.with_raw_response.create
            answer = (await self._open(create, body, exchange)).parse()
            if sending.on_text:
                return await _read_stream(answer, sending.on_text, exchange)
            return _read(answer, exchange)

        return await self._exchange(call, key=sending.key, timeout_s=sending.timeout_s)


def _read(answer: Any, exchange: Exchange) -> Reply | Fault:
    if answer is None or not answer.choices:
        return exchange.fault("malformed", "the answer has no choices")
    choice = answer.choices[0]
    refusal = choice.message.refusal
    return exchange.reply(
        text=refusal or choice.message.content or "",
        stop_reason="refusal" if refusal else _stop_reason(choice.finish_reason),
        usage=_usage(answer.usage),
        model=answer.model,
    )


async def _read_stream(
    stream: Any, on_text: Callable[[str], None], exchange: Exchange
) -> Reply | Fault:
    pieces: list[str] = []
    reason = model = ""
    refused = False
    usage: Any = None
    async with stream:
        async for chunk in events_of(stream, exchange):
            model, usage = chunk.model, chunk.usage or usage
            for choice in chunk.choices:
                refused = refused or bool(choice.delta.refusal)
                reason = choice.finish_reason or reason
                if text := choice.delta.refusal or choice.delta.content:
                    pieces.append(text)
                    on_text(text)
    return exchange.reply(
        text="".join(pieces),
        stop_reason="refusal" if refused else _stop_reason(reason),
        usage=_usage(usage),
        model=model,
    )


def _stop_reason(reason: str) -> str:
    return _STOP_REASONS.get(reason, reason)


def _usage(usage: Any) -> Usage | None:
    """Return the usage; ``prompt_tokens`` includes those read from and written to the cache."""
    if usage is None:
        return None
    details = usage.prompt_tokens_details
    read = (details and details.cached_tokens) or 0
    written = (details and details.cache_write_tokens) or 0
    return Usage(
        input_tokens=usage.prompt_tokens - read - written,
        cache_read_tokens=read,
        cache_write_5m_tokens=written,
        output_tokens=usage.completion_tokens,
    )
