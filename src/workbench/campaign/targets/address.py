"""Which addresses may be attacked: those of this machine, and those named and declared staging."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from typing import TYPE_CHECKING

from workbench.core.errors import ConfigError
from workbench.core.settings import Settings, is_loopback

if TYPE_CHECKING:
    from yarl import URL

__all__ = ["checked_address"]

_NAME = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63}){0,30}\.?")


def checked_address(
    url: str,
    *,
    where: str,
    schemes: Collection[str],
    allow_hosts: Collection[str],
    staging: bool,
    settings: Settings,
) -> URL:
    """Return an address that may be attacked, as the client will read it.

    The host is compared whole, after IDNA and in lower case, with each allowed one; an allowed one
    with a port allows that port alone. What its name resolves to is neither checked nor pinned.

    Args:
        url: What somebody wrote.
        where: Whose address, for messages.
        schemes: Those that it may have.
        allow_hosts: Hosts beyond this machine, each ``host`` or ``host:port``.
        staging: Whether the target is declared not to be production.
        settings: Say whether other machines may be reached at all.

    Raises:
        ConfigError: If it is no address, holds a user or password, or is not allowed.
    """
    parsed = _parsed(url, where=where)
    if parsed.scheme not in schemes:
        raise ConfigError(f"{where}: write an address that begins with {'://, '.join(schemes)}://")
    if parsed.raw_user is not None or parsed.raw_password is not None:
        raise ConfigError(
            f"{where}: the address holds a user or a password; send them in headers,"
            " e.g. Authorization: ${env:NAME}"
        )
    host = parsed.raw_host or ""
    address = str(parsed)
    if is_loopback(address):
        return parsed
    allowed = [_host_and_port(one) for one in allow_hosts]
    if not any(name == host and port in {None, parsed.port} for name, port in allowed):
        raise ConfigError(
            f"{where}: the host {host!r} is not allowed; add --allow-host {host} if you may test it"
        )
    if not staging:
        raise ConfigError(
            f"{where}: {host!r} is another machine; declare `staging: true` in the target's file,"
            " or add --staging, if it is no production system"
        )
    if not settings.may_connect(address):
        raise ConfigError(
            f"{where}: {host!r} is out of reach offline; set WORKBENCH_OFFLINE=0 to allow it"
        )
    return parsed


def _parsed(url: str, *, where: str) -> URL:
    """Return the address as yarl, which the client sends by, reads it; other readings differ."""
    from yarl import URL

    refusal = ConfigError(f"{where}: no address; write scheme://host[:port][/path], without spaces")
    if not url.isprintable() or " " in url or "\\" in url:
        raise refusal
    try:
        parsed = URL(url)
        host = parsed.raw_host or ""
        is_host = bool(ipaddress.IPv6Address(host) if ":" in host else _NAME.fullmatch(host))
    except ValueError:
        raise refusal from None
    if not is_host:
        raise refusal
    return parsed


def _host_and_port(text: str) -> tuple[str, int | None]:
    bracketed = f"[{text}]" if text.count(":") > 1 and not text.startswith("[") else text
    where = f"--allow-host {text[:80]!r}"
    if re.search(r"[/@?#]", text):
        raise ConfigError(f"{where}: write a host, or host:port, and nothing else")
    parsed = _parsed(f"http://{bracketed}", where=where)
    return parsed.raw_host or "", parsed.explicit_port
