"""Who asks: tokens to names, and nothing that changes from call to call."""

from __future__ import annotations

import asyncio
import hashlib
import json
from types import SimpleNamespace

import pytest
from jupyter_server.auth.identity import IdentityProvider, PasswordIdentityProvider, User

from workbench.core.errors import ConfigError
from workbench.server.identity import WorkbenchIdentity, name_of

HASHED = "sha256:" + hashlib.sha256(b"bens").hexdigest()


class Request(SimpleNamespace):
    """What the provider asks of a handler."""

    def __init__(self, *, path="/workbench/", token="", cookie=b"", password=""):
        header = {"Authorization": f"token {token}"} if token else {}
        request = SimpleNamespace(headers=header, path=path, host="here", protocol="http")
        super().__init__(request=request, settings={"base_url": "/"}, base_url="/", said={})
        self.token = "own"
        self._cookie, self._password = cookie, password

    def get_argument(self, name, default):
        return self._password if name == "password" else default

    def get_secure_cookie(self, name, **_):
        return self._cookie

    def get_cookie(self, name):
        return self._cookie or None

    def set_secure_cookie(self, name, value, **_):
        self.said["cookie"] = value

    def clear_cookie(self, name, **_):
        self.said["cookie"] = None


def provider(**more):
    usual = {"owner": "owner", "token": "own", "tokens": {"annas": "anna", HASHED: "ben"}}
    return WorkbenchIdentity(**{**usual, **more})


def who(one, **request):
    found = asyncio.run(one.get_user(Request(**request)))
    return found.username if found else None


@pytest.mark.parametrize(
    ("token", "name"),
    [("own", "owner"), ("annas", "anna"), ("bens", "ben"), ("", None), ("anna", None),
     (HASHED, None), ("annas ", None), ("é\ud800", None)],
)  # fmt: skip
def test_a_token_is_always_the_same_person(token, name):
    one = provider()
    assert [who(one, token=token) for _ in range(2)] == [name, name]


@pytest.mark.parametrize("path", ["/", "/api/kernels", "/workbenches/x", "/lab", "/workbench2"])
def test_outside_of_the_extension_there_is_only_the_owner(path):
    one = provider()
    assert who(one, token="annas", path=path) is None
    assert who(one, token="own", path=path) == "owner"
    assert who(one, token="annas", path="/workbench") == "anna"


def test_a_token_counts_before_the_cookie_of_another():
    one = provider()
    cookie = one.user_to_cookie(User(username="owner")).encode()
    assert who(one, cookie=cookie) == "owner"
    assert who(one, cookie=cookie, token="annas") == "anna"


def test_the_cookie_of_who_was_struck_off_is_nobodys():
    cookie = provider().user_to_cookie(User(username="anna")).encode()
    assert who(provider(), cookie=cookie) == "anna"
    assert who(provider(tokens={}), cookie=cookie) is None
    assert who(provider(), cookie=b"no json") is None


@pytest.mark.parametrize(
    ("typed", "name"), [("own", "owner"), ("annas", "anna"), ("wrong", None), ("", None)]
)
def test_people_log_in_with_their_token(typed, name):
    found = provider().process_login_form(Request(password=typed))
    assert (found.username if found else None) == name


def test_tokens_are_read_from_a_file(tmp_path):
    file = tmp_path / "tokens.json"
    file.write_text(json.dumps({HASHED: "carla"}))
    one = provider(tokens={}, tokens_file=str(file))
    assert who(one, token="bens") == "carla"
    for wrong in ("[]", "{", '{"a": 1}'):
        file.write_text(wrong)
        with pytest.raises(ConfigError, match="tokens_file"):
            provider(tokens_file=str(file))


@pytest.mark.parametrize("name", ["", " ", "a\nb", "x" * 201, "\u202e"])
def test_a_name_that_no_record_can_carry_is_refused(name):
    with pytest.raises(ConfigError, match="user name"):
        provider(tokens={"t": name})
    with pytest.raises(ConfigError, match="user name"):
        name_of(name, provider(), owner="owner")


def test_names_that_jupyter_invents_are_the_owner():
    for invents in (IdentityProvider(), PasswordIdentityProvider()):
        assert name_of("0f3a", invents, owner="owner") == "owner"
    assert name_of("anna", provider(), owner="owner") == "anna"


def test_another_provider_is_believed():
    class Hub(IdentityProvider):
        """As JupyterHub's: it knows its users."""

    assert name_of("hub-user", Hub(), owner="owner") == "hub-user"
