"""A model server on 127.0.0.1 for tests, ablations and rehearsals; nothing leaves the machine.

It speaks the Anthropic Messages API (plain, streamed, batches), the same through Bedrock and Vertex
paths, and OpenAI chat completions; it validates, rate-limits, caches prompts and bills as the
services do, goes wrong on demand (``faults``) and keeps a ledger of its own (``ledger``).

Base URLs: ``base_url`` for Anthropic and Bedrock, ``base_url + "/v1"`` for OpenAI and Vertex.
"""

from workbench.llm.loopback.faults import Faults, parse_faults
from workbench.llm.loopback.server import LoopbackServer

__all__ = ["Faults", "LoopbackServer", "parse_faults"]
