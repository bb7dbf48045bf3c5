"""Without a server the cache is refused or left out, and shows no password."""

from __future__ import annotations

import asyncio
import builtins
import logging
from dataclasses import replace

import pytest

from workbench.core.errors import ConfigError
from workbench.llm.cache import RedisCache, open_cache

PASSWORD = "not4real"


def test_no_address_means_no_cache(settings):
    assert open_cache(settings) is None


def test_offline_a_cache_elsewhere_is_left_out_and_said_so_without_its_password(settings, caplog):
    url = f"redis://:{PASSWORD}@cache.example.org/0"
    assert open_cache(replace(settings, cache_url=url)) is None
    assert "redis://***@cache.example.org/0: no response cache" in caplog.text
    assert PASSWORD not in caplog.text


@pytest.mark.parametrize(
    "url",
    [
        f"http://u:{PASSWORD}@127.0.0.1/0",
        f"{PASSWORD}@127.0.0.1",
        f"redis://:{PASSWORD}@127.0.0.1:port/0",
        f"redis://:{PASSWORD}@127.0.0.1?socket_timeout={PASSWORD}",
        f"redis://127.0.0.1?{PASSWORD}=1",
    ],
)
def test_what_is_no_redis_address_is_refused_and_not_shown(url):
    with pytest.raises(ConfigError, match=r"WORKBENCH_CACHE_URL.*redis://host:6379/0") as caught:
        RedisCache(url)
    assert PASSWORD not in str(caught.value)


def test_the_extra_is_named_where_it_is_absent(monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name.startswith("redis"):
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"prompt-safety-workbench\[redis\]"):
        RedisCache("redis://127.0.0.1/0")


def test_a_server_that_is_down_is_a_miss_and_one_warning_and_is_left_alone_a_while(caplog):
    caplog.set_level(logging.WARNING)
    now = [0.0]

    async def use():
        cache = RedisCache(f"redis://:{PASSWORD}@127.0.0.1:9/0", clock=lambda: now[0])
        tried = []
        ask = cache._redis.execute_command
        cache._redis.execute_command = lambda *command: tried.append(command) or ask(*command)
        try:
            assert await cache.get("k") is None
            await cache.put("k", {"text": "x"}, ttl_s=1)
            assert await cache.lease("k", ttl_s=1)  # the store still guards
            assert await cache.renew("k", ttl_s=1)
            await cache.release("k")
            assert not await cache.is_reachable()
            assert len(tried) == 1
            now[0] = 31.0
            assert await cache.get("k") is None
            assert len(tried) == 2
        finally:
            await cache.close()

    asyncio.run(use())
    assert len(caplog.records) == 1
    assert "redis://***@127.0.0.1:9/0: no response cache (ConnectionError)" in caplog.text
    assert PASSWORD not in caplog.text
