"""Who may call what: API keys with scopes, and how often each key may call.

A key is written `name:scope+scope:secret`, one per line in the file RECGUARD_API_KEYS_FILE, or separated by commas in
RECGUARD_API_KEYS. Several keys may have the same name, so that a new secret can be handed out before the old one is
withdrawn. Instead of a secret, a key may have `sha256:` and the hex digest of the secret.
"""

import hmac
import ipaddress
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from service.api.rates import Buckets
from service.schemas.problems import Problem
from service.telemetry.logs import CALL
from service.telemetry.metrics import Metrics

Permission = Literal["score", "review", "admin", "metrics"]
SCOPES = ", ".join(get_args(Permission))
LEAST_SECRET = 16  # characters
HASHED = "sha256:"
GUARDED: set[tuple[Permission, ...]] = {("admin",), ("review",)}  # of routes that change something or show answers
LOCAL = "local"  # name of the caller if there are no keys


@dataclass(frozen=True)
class Key:
    """One key: its owner, what it allows, and the SHA-256 of its secret."""

    name: str
    permissions: frozenset[str]
    digest: bytes


def read_keys(text: str, where: str) -> list[Key]:
    """Keys of a file or a variable; blank lines and lines that begin with # are skipped.

    Raises:
        ValueError: an entry is malformed; the message names the place, never the secret.
    """
    keys = []
    for number, entry in enumerate(re.split(r"[,\n]", text), 1):
        if not (entry := entry.strip()) or entry.startswith("#"):
            continue
        at = f"{where}: key {number}"
        name, _, rest = entry.partition(":")
        permissions, _, secret = rest.partition(":")
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name) or not secret:
            raise ValueError(f"{at} is not name:scope+scope:secret")
        if unknown := set(permissions.split("+")) - set(get_args(Permission)):
            raise ValueError(f"{at} ({name}): {', '.join(sorted(unknown))!r} is no scope; there are {SCOPES}")
        if secret.startswith(HASHED):
            if not re.fullmatch(r"[0-9a-f]{64}", digest := secret.removeprefix(HASHED)):
                raise ValueError(f"{at} ({name}): what follows sha256: is not 64 hex digits")
            keys.append(Key(name, frozenset(permissions.split("+")), bytes.fromhex(digest)))
            continue
        if len(secret) < LEAST_SECRET:
            raise ValueError(f"{at} ({name}): the secret has fewer than {LEAST_SECRET} characters")
        keys.append(Key(name, frozenset(permissions.split("+")), sha256(secret.encode()).digest()))
    return keys


class Access:
    """Checks who calls.

    Args:
        text: keys, in the form of RECGUARD_API_KEYS.
        file: a file with more keys.
        buckets: how often each name may call; None for no limit.
        host: the address that the service listens on.
        metrics: where refusals are counted.
        hosts: names, beside loopback ones, under which admin and review routes may be called.

    Raises:
        ValueError: a malformed key, or a file without one.
        OSError: the file cannot be read.
    """

    def __init__(
        self,
        text: str,
        file: Path | None,
        buckets: Buckets | None,
        host: str,
        metrics: Metrics,
        hosts: Collection[str] = (),
    ) -> None:
        self.keys = read_keys(text, "RECGUARD_API_KEYS")
        if file is not None:
            self.keys += read_keys(file.read_text(), str(file))
            if not self.keys:
                raise ValueError(f"{file}: it holds no key, so nobody could call the service")
        self.buckets, self.metrics = buckets, metrics
        self.loopback, self.hosts = _is_loopback(host), hosts

    def allow(self, scope: Mapping[str, Any], *permissions: Permission) -> str:
        """The same as `check`, but counts a refusal and puts the caller's name into the request's log line."""
        try:
            who = self.check(scope, *permissions)
        except Problem as problem:
            self.metrics.rejected.labels("rate" if problem.status == 429 else "access").inc()
            raise
        if call := CALL.get():
            call.who = who
        return who

    def check(self, scope: Mapping[str, Any], *permissions: Permission) -> str:
        """The name of an ASGI request's caller, who must have one of the permissions.

        Raises:
            Problem: 401 no key or an unknown key, 403 the key does not allow this, or a page of another site asks,
                429 too many requests.
        """
        if permissions in GUARDED:
            self._own_page(scope)
        if not self.keys:
            return self._local(scope) if permissions in GUARDED else LOCAL
        key = self._key(scope)
        if key is None:
            raise Problem(
                401, "send a valid API key: Authorization: Bearer KEY", headers={"WWW-Authenticate": "Bearer"}
            )
        if not key.permissions & set(permissions):
            raise Problem(403, f"the key {key.name} does not allow this; it needs the scope {' or '.join(permissions)}")
        self._spend(key.name)
        return key.name

    def _key(self, scope: Mapping[str, Any]) -> Key | None:
        kind, _, secret = (header(scope, b"authorization") or b"").partition(b" ")
        if kind.lower() != b"bearer":
            return None
        digest, found = sha256(secret.strip()).digest(), None
        for key in self.keys:  # tries all keys, so that the time does not reveal which one matched
            if hmac.compare_digest(digest, key.digest):
                found = key
        return found

    def _local(self, scope: Mapping[str, Any]) -> str:
        """Lets callers on this host pass, but not callers that reach it through a proxy on this host."""
        if not self.loopback:
            raise Problem(403, "this route is off: the service listens beyond its own host, and no API key is set")
        headers = {name for name, _ in scope["headers"]}
        client = scope.get("client")
        if not client or not _is_loopback(client[0]) or headers & {b"forwarded", b"x-forwarded-for"}:
            raise Problem(403, "without API keys this route answers only calls from the service's own host")
        return LOCAL

    def _own_page(self, scope: Mapping[str, Any]) -> None:
        """Refuses what a page of another site has a browser send, under our own name or a rebound one."""
        host = (header(scope, b"host") or b"").decode("latin-1")
        if host and not _is_loopback(name := _name_of(host)) and name not in self.hosts:
            raise Problem(403, f"Host {host!r} is not known here; name it in RECGUARD_HOSTS, or call by 127.0.0.1")
        origin = (header(scope, b"origin") or b"").decode("latin-1")
        if origin and (not host or _address_of(origin.partition("://")[2]) != _address_of(host)):
            raise Problem(403, f"a page of {origin} may not call this; only the service's own pages may")

    def _spend(self, name: str) -> None:
        if self.buckets is not None and (wait := self.buckets.spend(name)):
            raise Problem(
                429,
                f"more than {self.buckets.rate:g} requests a second",
                headers={"Retry-After": str(max(round(wait), 1))},
            )


def header(scope: Mapping[str, Any], name: bytes) -> bytes | None:
    """The first value of an ASGI request's header, whose name is in lower case; None if there is none."""
    return next((value for found, value in scope["headers"] if found == name), None)


def needs(access: Access, *permissions: Permission) -> list[Any]:
    """FastAPI's dependency that asks for an API key with one of the permissions; returns the caller's name."""
    scheme = HTTPBearer(auto_error=False, description="An API key, where the service has any.")

    async def caller(request: Request, _: Annotated[Any, Depends(scheme)]) -> str:
        return access.allow(request.scope, *permissions)

    return [Depends(caller)]


def _name_of(host: str) -> str:
    """The name in a Host header, in lower case and without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _address_of(host: str) -> str:
    """A Host without the port that the scheme implies, which one side may name and the other may not."""
    return host.lower().removesuffix(":443").removesuffix(":80")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
