"""Artifacts on any fsspec location: S3 and what speaks like it, or another file system.

A folder is uploaded under a name of its own, its manifest last: a half upload never counts, and
what replaces a folder never touches the files that somebody reads.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

from workbench.core.errors import ConfigError, StoreError
from workbench.core.fields import refuse_unknown
from workbench.core.redact import PATTERNS, hide_password
from workbench.store.marks import new_key
from workbench.store.packing import files_below, sha256_of

__all__ = ["Remote", "open_remote"]

T = TypeVar("T")

_HERE = {"memory", "file", "local"}
"""Protocols that open no connection."""
_EXTRAS = {"s3": "s3", "s3a": "s3"}
"""Protocol → extra of this package that brings its driver."""
_OPTIONS = ("endpoint_url", "region_name", "profile", "anon")
"""What the query of an S3 address may say; who one is, is left to the environment."""
_SECRETS = ("private-key", "api-key", "token")
"""Patterns of what no message shows; addresses of machines are what it is about."""
_PAUSES_S = (0.2, 1.0)
"""Waits before the second and the third try; the driver retries what it knows itself."""


@dataclass(frozen=True, kw_only=True)
class Remote:
    """A folder of folders on an fsspec file system."""

    protocol: str
    root: str
    """Bucket and prefix, or path."""
    options: dict[str, Any]

    @property
    def url(self) -> str:
        """What is shown of the address: nothing that may be secret."""
        return hide_password(f"{self.protocol}://{self.root}")

    def upload(self, place: str, folder: Path, *, packed: bool = False) -> str:
        """Upload a folder beside what is at a place already; return the name of the upload.

        Args:
            place: Kind and id, with a slash.
            folder: What to upload; its empty folders are left out.
            packed: Whether it holds an archive instead of the files themselves.

        Raises:
            StoreError: If the location cannot be written, tried three times.
        """
        upload = new_key()
        paths = list(files_below(folder))
        names = [path.relative_to(folder).as_posix() for path in paths]
        files = {
            name: {"sha256": sha256_of(path), "bytes": path.stat().st_size}
            for name, path in zip(names, paths, strict=True)
        }
        manifest = json.dumps({"files": files, "packed": packed}, indent=1).encode()
        base = self._at(place, upload)
        if paths:
            targets = [f"{base}/{name}" for name in names]
            self._tried("write", lambda: self._files.put(list(map(str, paths)), targets))
        self._tried("write", lambda: self._files.pipe({f"{base}.json": manifest}))
        return upload

    def download(self, place: str, upload: str, folder: Path) -> bool:
        """Download an upload into an empty folder, each file checked by its hash.

        Returns:
            Whether it holds an archive instead of the files themselves.

        Raises:
            FileNotFoundError: If there is no such upload.
            StoreError: If the location cannot be read, tried three times, or a file is damaged.
        """
        base = self._at(place, upload)
        manifest = self.manifest(place, upload)
        names = list(manifest["files"])
        for name in names:
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
                raise StoreError(f"{self.url}: {place} names a file {name!r}; not ours, remove it")

        def fetch() -> None:
            if names:
                sources = [f"{base}/{name}" for name in names]
                self._files.get(sources, [str(folder / name) for name in names])
            for name in names:
                if sha256_of(folder / name) != manifest["files"][name]["sha256"]:
                    raise OSError(f"{name} no longer matches its sha256")

        self._tried(f"read {place}", fetch)
        return bool(manifest["packed"])

    def manifest(self, place: str, upload: str) -> dict[str, Any]:
        """Return ``files`` (name → sha256, bytes) and ``packed`` of an upload.

        Raises:
            FileNotFoundError: If there is no such upload.
            StoreError: If the location cannot be read, or the manifest is damaged.
        """
        data = self._tried("read", lambda: self._files.cat_file(f"{self._at(place, upload)}.json"))
        try:
            manifest = json.loads(data)
            if not isinstance(manifest["files"], dict) or "packed" not in manifest:
                raise ValueError("not a manifest")  # noqa: TRY301 - as damaged as no JSON
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"{self.url}: manifest of {place} is damaged ({error}); restore it from a backup"
            ) from error
        return dict(manifest)

    def problems(self, place: str, upload: str, *, deep: bool = False) -> list[str]:
        """Return what is wrong with an upload, in words; with ``deep`` every byte is read."""
        try:
            manifest = self.manifest(place, upload)
        except FileNotFoundError:
            return [f"{self.url}: {place} is missing"]
        except StoreError as error:
            return [str(error)]
        found = []
        for name, said in manifest["files"].items():
            path = f"{self._at(place, upload)}/{name}"
            try:
                size = self._tried("read", partial(self._files.size, path))
                if size != said["bytes"] or (deep and self._sha256(path) != said["sha256"]):
                    found.append(f"{self.url}: {place}/{name} no longer matches its manifest")
            except FileNotFoundError:
                found.append(f"{self.url}: {place}/{name} is missing")
        return found

    def remove(self, place: str, upload: str) -> None:
        """Remove an upload, manifest first; what is gone already is no error."""
        base = self._at(place, upload)
        for path, recursive in ((f"{base}.json", False), (base, True)):
            try:
                self._tried("remove", partial(self._files.rm, path, recursive=recursive))
            except FileNotFoundError:
                continue

    def everything(self) -> list[tuple[str, str]]:
        """Return place and name of every upload, also of half ones."""
        try:
            found = self._tried("read", lambda: self._files.find(self._at("")))
        except FileNotFoundError:
            return []
        below = [one.partition(f"{self.root.strip('/')}/")[2].split("/") for one in found]
        return sorted(
            {
                (f"{parts[0]}/{parts[1]}", parts[2].removesuffix(".json"))
                for parts in below
                if len(parts) > 2  # noqa: PLR2004 - kind, id, upload
            }
        )

    def _sha256(self, path: str) -> str:
        def read() -> str:
            digest = hashlib.sha256()
            with self._files.open(path, "rb") as file:
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
            return digest.hexdigest()

        return self._tried("read", read)

    def _at(self, place: str, upload: str = "") -> str:
        return "/".join(part for part in (self.root.rstrip("/"), place, upload) if part)

    @cached_property
    def _files(self) -> Any:
        import fsspec

        try:
            kind = fsspec.get_filesystem_class(self.protocol)
        except ImportError as error:
            extra = _EXTRAS.get(self.protocol)
            fix = f"pip install 'prompt-safety-workbench[{extra}]'" if extra else f"{error}"
            raise ConfigError(
                f"WORKBENCH_ARTIFACTS_URL: {self.protocol}:// needs a package that is not"
                f" installed; {fix}"
            ) from error
        except ValueError:
            raise ConfigError(
                f"WORKBENCH_ARTIFACTS_URL: unknown protocol {self.protocol!r}; write e.g."
                " s3://bucket/prefix or file:///folder"
            ) from None
        return kind(**self.options)

    def _tried(self, what: str, call: Callable[[], T]) -> T:
        files = self._files  # a wrong setting is no fault of the network
        for pause_s in (*_PAUSES_S, None):
            try:
                return call()
            except FileNotFoundError as error:
                if what == "write":  # where to: no such bucket
                    raise self._error(what, error) from error
                raise
            except PermissionError as error:
                raise self._error(what, error) from error
            except Exception as error:
                if pause_s is None:
                    raise self._error(what, error) from error
                files.invalidate_cache()
                time.sleep(pause_s)
        raise AssertionError("the last try returns or raises")

    def _error(self, what: str, error: Exception) -> StoreError:
        told = re.sub(r"\?\S*", "", " ".join(str(error).split()))  # a signature may follow a "?"
        for name in _SECRETS:
            told = PATTERNS[name].sub(f"[{name}]", told)
        return StoreError(
            f"{self.url}: cannot {what} ({type(error).__name__}: {told[:160]}); check that"
            " it exists, the network, and who the environment says you are, then run again:"
            " finished steps are kept"
        )


def open_remote(url: str, *, may_connect: Callable[[str], bool]) -> Remote | None:
    """Return the location that an address names, or None for none; opens no connection yet.

    Args:
        url: As ``WORKBENCH_ARTIFACTS_URL`` says, e.g. ``s3://bucket/prefix?endpoint_url=…``.
        may_connect: Whether an address may be connected to.

    Raises:
        ConfigError: If it names none, holds a password, or may not be connected to.
    """
    if not url:
        return None
    name = "WORKBENCH_ARTIFACTS_URL"
    parts = urlsplit(url)
    if not parts.scheme or "://" not in url:
        raise ConfigError(f"{name} is {hide_password(url)!r}; write e.g. s3://bucket/prefix")
    if "@" in parts.netloc:
        raise ConfigError(
            f"{name}: a user or password does not belong into {hide_password(url)!r}; set"
            " AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        )
    options: dict[str, Any] = dict(parse_qsl(parts.query, keep_blank_values=True))
    is_s3 = parts.scheme in _EXTRAS
    refuse_unknown(options, known=_OPTIONS if is_s3 else (), where=f"{name}, after the '?'")
    if parts.scheme not in _HERE and not may_connect(options.get("endpoint_url", url)):
        raise ConfigError(
            f"{name} is {hide_password(url)!r}, and this is offline; set WORKBENCH_OFFLINE=0"
        )
    root = f"{parts.netloc}{parts.path}"
    return Remote(
        protocol=parts.scheme,
        root=root if parts.scheme in _HERE else root.strip("/"),
        options=_driver_options(parts.scheme, options),
    )


def _driver_options(protocol: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return what the driver of a protocol is made with."""
    if protocol in {"file", "local"}:
        return {"auto_mkdir": True, "skip_instance_cache": True}
    if protocol not in _EXTRAS:
        return {}
    region = options.pop("region_name", "")
    anon = options.pop("anon", "0") in {"1", "true", "True"}
    return {
        **options,
        "anon": anon,
        "client_kwargs": {"region_name": region} if region else {},
        # s3fs retries by itself, and so do we: a third layer makes a dead server take half a minute
        "config_kwargs": {
            "connect_timeout": 5,
            "read_timeout": 60,
            "retries": {"max_attempts": 0},
        },
        "use_listings_cache": False,
        "skip_instance_cache": True,
    }
