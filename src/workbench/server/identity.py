"""Who asks: one name per person, the same at every call, so that records can have owners.

Jupyter's own provider invents a name at each call with a token. JupyterHub brings a provider that
knows its users; that one is used where it is set.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from jupyter_server.auth.identity import IdentityProvider, PasswordIdentityProvider, User
from tornado.web import RequestHandler
from traitlets import Dict, Unicode, default

from workbench.core.errors import ConfigError
from workbench.core.settings import read_settings

__all__ = ["RESOURCE", "WorkbenchIdentity", "name_of"]

RESOURCE = "workbench"
"""How the extension's paths begin, and its name where it is decided who may use what."""
_MOST_NAME = 200
_HASHED = "sha256:"


class WorkbenchIdentity(PasswordIdentityProvider):
    """Names people by their token; who has the server's own token or password is its owner.

    The others are nobody outside of the extension: kernels, files, terminals and the installing of
    packages are the owner's alone.
    """

    owner = Unicode(
        help="Name of who runs the server; WORKBENCH_USER or the user of the system by default."
    ).tag(config=True)
    tokens = Dict(
        key_trait=Unicode(), value_trait=Unicode(),
        help="Token, or sha256:HEX of one, to the name of the person who has it.",
    ).tag(config=True)  # fmt: skip
    tokens_file = Unicode(
        help="JSON file of an object like `tokens`; read when the server starts."
    ).tag(config=True)

    @default("owner")
    def _owner_default(self) -> str:
        return read_settings().user

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        named = {**self.tokens, **(_read(Path(self.tokens_file)) if self.tokens_file else {})}
        self._names = {_digest_of(token): _checked(name) for token, name in named.items()}

    async def get_user(self, handler: RequestHandler) -> User | None:
        """Return who asks, if that is the owner, or somebody who asks the extension."""
        user = await self._get_user(handler)
        base = str(handler.settings.get("base_url", "/"))
        is_ours = f"{handler.request.path}/".startswith(f"{base}{RESOURCE}/")
        return user if user and (is_ours or user.username == self.owner) else None

    async def get_user_token(self, handler: RequestHandler) -> User | None:
        """Return who a token belongs to; never the one whom an older cookie names."""
        return self._user_of(self.get_token(handler) or "")

    def process_login_form(self, handler: RequestHandler) -> User | None:
        """Return who logs in with a token of a person, or with the server's token or password."""
        named = self._user_of(handler.get_argument("password", default=""), is_owner_known=False)
        return named or super().process_login_form(handler)

    def generate_anonymous_user(self, handler: RequestHandler) -> User:  # noqa: ARG002
        """Return the owner: who got in without being named has the server's own secret."""
        return User(username=self.owner)

    def user_from_cookie(self, cookie_value: str) -> User | None:
        """Return the user of a cookie, if that is still one of this server's."""
        user = super().user_from_cookie(cookie_value)
        known = {self.owner, *self._names.values()}
        return user if user and user.username in known else None

    def _user_of(self, token: str, *, is_owner_known: bool = True) -> User | None:
        # looked up by hash: how long that takes says nothing of the token
        digest = hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
        if token and digest in self._names:
            return User(username=self._names[digest])
        is_own = self.token and digest == _digest_of(self.token)
        return User(username=self.owner) if is_owner_known and is_own else None


def name_of(username: str, provider: IdentityProvider, *, owner: str) -> str:
    """Return under which name the records of a user are kept.

    Args:
        username: Whom the provider found.
        provider: Which one that was.
        owner: Who runs the server: all there is behind the providers that invent names.

    Raises:
        ConfigError: If it is no name that records can carry.
    """
    if type(provider) in {IdentityProvider, PasswordIdentityProvider}:
        return owner
    return _checked(username)


def _read(file: Path) -> dict[str, str]:
    try:
        named = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"tokens_file {file}: {error}; write a JSON object") from None
    if not isinstance(named, dict) or not all(isinstance(one, str) for one in named.values()):
        raise ConfigError(f'tokens_file {file}: write {{"sha256:HEX": "name", ...}}')
    return named


def _digest_of(token: str) -> str:
    if token.startswith(_HASHED):
        return token.removeprefix(_HASHED).lower()
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def _checked(name: str) -> str:
    if not name.strip() or not name.isprintable() or len(name) > _MOST_NAME:
        raise ConfigError(f"user name {name[:80]!r}: give 1 to {_MOST_NAME} printable letters")
    return name
