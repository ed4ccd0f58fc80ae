"""API keys: how they are read, who passes, and how often."""

from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from service.api.auth import LOCAL, Access, Permission, read_keys
from service.api.rates import Buckets
from service.schemas.problems import Problem
from service.telemetry.metrics import Metrics

SECRET = "correct-horse-battery"


def call(key: str | None = None, client: str = "127.0.0.1", **headers: str) -> dict[str, Any]:
    if key is not None:
        headers["authorization"] = f"Bearer {key}"
    return {"headers": [(n.replace("_", "-").encode(), v.encode()) for n, v in headers.items()], "client": (client, 1)}


def status(access: Access, scope: dict[str, Any], *permissions: Permission) -> int:
    try:
        access.check(scope, *permissions)
    except Problem as problem:
        return problem.status
    return 200


def test_a_key_opens_what_its_scopes_name_and_nothing_else() -> None:
    access = Access(f"backend:score:{SECRET}, ops:admin+metrics:{SECRET}-2", None, None, "0.0.0.0", Metrics())
    assert access.check(call(SECRET), "score") == "backend"
    assert access.check(call(f"{SECRET}-2"), "score", "admin") == "ops"
    assert status(access, call(SECRET), "admin") == 403
    assert status(access, call(f"{SECRET}-2"), "score") == 403
    for wrong in (None, "", SECRET[:-1], SECRET + "x", "ops"):
        assert status(access, call(wrong), "score") == 401
    assert status(access, call(authorization=f"Basic {SECRET}"), "score") == 401


def test_secrets_rotate_under_one_name_and_may_be_given_as_digests(tmp_path: Path) -> None:
    new = f"{SECRET}-new"
    file = tmp_path / "keys"
    file.write_text(
        f"# of the backend\nbackend:score:{SECRET}\n\nbackend:score:sha256:{sha256(new.encode()).hexdigest()}\n"
    )
    access = Access("", file, None, "0.0.0.0", Metrics())
    assert [access.check(call(secret), "score") for secret in (SECRET, new)] == ["backend", "backend"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"backend:{SECRET}", "key 1 is not name:scope"),
        (f"a:score:{SECRET},backend:all:{SECRET}", "key 2 (backend): 'all'"),
        ("backend:score:short", "fewer than 16"),
        (f"backend:score:sha256:{SECRET}", "64 hex digits"),
    ],
)
def test_a_malformed_key_is_named_by_its_place_and_never_shown(text: str, says: str) -> None:
    with pytest.raises(ValueError, match="keys") as raised:
        read_keys(text, "keys")
    assert says in str(raised.value)
    assert SECRET not in str(raised.value)


def test_a_file_without_keys_does_not_open_the_doors(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("# none yet\n")
    with pytest.raises(ValueError, match="no key"):
        Access("", tmp_path / "keys", None, "127.0.0.1", Metrics())


@pytest.mark.parametrize("guarded", ["admin", "review"])
def test_without_keys_scoring_is_open_and_what_is_guarded_is_for_the_own_host_alone(guarded: Permission) -> None:
    local, beyond = Access("", None, None, "127.0.0.1", Metrics()), Access("", None, None, "0.0.0.0", Metrics())
    assert local.check(call(), guarded) == LOCAL
    assert status(local, call(client="10.0.0.7", host="127.0.0.1"), guarded) == 403
    assert status(local, call(x_forwarded_for="10.0.0.7"), guarded) == 403
    assert status(beyond, call(), guarded) == 403
    assert [status(a, call(client="10.0.0.7"), "score") for a in (local, beyond)] == [200, 200]


def test_a_key_may_call_so_often_and_another_is_not_affected() -> None:
    access = Access(f"a:score:{SECRET},b:score:{SECRET}-2", None, Buckets(0.01, None), "0.0.0.0", Metrics())
    assert [status(access, call(SECRET), "score") for _ in range(3)] == [200, 429, 429]
    assert status(access, call(f"{SECRET}-2"), "score") == 200
    with pytest.raises(Problem) as raised:
        access.check(call(SECRET), "score")
    assert raised.value.headers is not None
    assert 90 <= int(raised.value.headers["Retry-After"]) <= 100


@pytest.mark.parametrize("text", ["", f"ops:admin+review:{SECRET}"])
@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"host": "127.0.0.1:8080"}, 200),
        ({"host": "localhost"}, 200),
        ({"host": "[::1]:8080"}, 200),
        ({"host": "Desk.Example:80"}, 200),
        ({"host": "rebound.example"}, 403),
        ({"host": "127.0.0.1.rebound.example"}, 403),
        ({"host": "[bad"}, 403),
        ({"host": "127.0.0.1:8080", "origin": "http://127.0.0.1:8080"}, 200),
        ({"host": "desk.example", "origin": "https://desk.example"}, 200),
        ({"host": "desk.example", "origin": "https://desk.example:443"}, 200),
        ({"host": "127.0.0.1:8080", "origin": "http://127.0.0.1:9090"}, 403),
        ({"host": "127.0.0.1:8080", "origin": "http://elsewhere.example"}, 403),
        ({"host": "127.0.0.1:8080", "origin": "null"}, 403),
        ({"origin": "http://elsewhere.example"}, 403),
    ],
)
def test_what_changes_something_is_for_pages_of_the_services_own_names(
    text: str, headers: dict[str, str], expected: int
) -> None:
    access = Access(text, None, None, "127.0.0.1", Metrics(), {"desk.example"})
    key = SECRET if text else None
    permissions: tuple[Permission, ...]
    for permissions in (("admin",), ("review",)):
        assert status(access, call(key, **headers), *permissions) == expected
    if not text:
        assert status(access, call(**headers), "score") == 200
