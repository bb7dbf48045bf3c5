"""What is read in an answer that passes by: its tokens, and where it ends."""

from __future__ import annotations

import json

import pytest

from workbench.serving.relay import Meter

CLAUDE = (
    b'event: message_start\ndata: {"message": {"usage": {"input_tokens": 7}}}\n\n'
    b'event: message_delta\ndata: {"usage": {"output_tokens": 9}}\n\n'
    b'event: message_stop\ndata: {"type": "message_stop"}\n\n'
)
GPT = b'data: {"usage": {"prompt_tokens": 7}}\r\n\r\ndata: [DONE]\r\n\r\n'


def fed(stream: bytes, size: int) -> Meter:
    meter = Meter()
    for start in range(0, len(stream), size):
        meter.feed(stream[start : start + size])
    return meter


@pytest.mark.parametrize("size", [1, 7, 1_000])
def test_a_stream_is_whole_where_it_says_so_however_it_is_cut(size):
    assert fed(CLAUDE, size).found == {"input_tokens": 7, "output_tokens": 9}
    for stream in (CLAUDE, GPT, GPT.replace(b" [", b"[")):
        meter = fed(stream, size)
        assert meter.is_whole
        assert meter.bytes == len(stream)
    assert not fed(CLAUDE[: CLAUDE.index(b"event: message_stop")], size).is_whole
    assert not fed(GPT[: GPT.index(b"[DONE]")], size).is_whole


def test_a_last_line_may_end_without_a_line_end():
    for stream in (CLAUDE[: CLAUDE.index(b"stop\n") + 4], GPT.rstrip()):
        meter = fed(stream, 7)
        assert not meter.is_whole
        meter.end()
        assert meter.is_whole


def test_what_a_model_writes_does_not_end_a_stream():
    for text in ("event: message_stop", "\ndata: [DONE]\n", "[DONE]", "message_stop"):
        for key in ("type", "text"):
            assert not fed(b"data: " + json.dumps({key: text}).encode() + b"\n\n", 1_000).is_whole
