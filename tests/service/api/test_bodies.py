"""What a body may be, and how the JSON in it is found."""

import codecs
import gzip
import json
import time
import zlib
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.bodies import MOST_MEMBERS, PIECE, UNICODE, TooLarge, charset_of, checked, json_of
from service.schemas.problems import Problem

MOST = 10_000
objects = st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3)


def scope(**headers: str) -> dict[str, Any]:
    return {"headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]}


def read(body: bytes, **headers: str) -> bytes:
    return json_of(scope(**headers), body, charset_of(scope(**headers)), MOST)


def refused(body: bytes, **headers: str) -> int:
    with pytest.raises(Problem) as raised:
        checked(read(body, **headers))
    return raised.value.status


@given(objects, st.sampled_from(sorted(UNICODE - {"ascii"})), st.booleans())
def test_every_unicode_encoding_is_read_with_a_charset_or_without(content: Any, charset: str, said: bool) -> None:
    body = json.dumps(content, ensure_ascii=False).encode(charset)
    more = {"content_type": f"application/json; charset={charset}"} if said else {}
    assert json.loads(read(body, **more)) == content


@given(objects, st.integers(1, 4))
def test_all_members_of_gzip_and_both_kinds_of_deflate_are_unpacked(content: Any, members: int) -> None:
    body = json.dumps(content).encode()
    cuts = [len(body) * k // members for k in range(members + 1)]
    packed = b"".join(gzip.compress(body[a:b], mtime=0) for a, b in pairwise(cuts))
    assert read(packed, content_encoding="gzip") == body
    assert read(zlib.compress(body), content_encoding="Deflate") == body
    bare = zlib.compressobj(wbits=-15)
    assert read(bare.compress(body) + bare.flush(), content_encoding="deflate") == body
    assert read(codecs.BOM_UTF8 + body, content_encoding="identity") == body


def test_a_body_stops_at_its_limit_however_many_members_it_has() -> None:
    member = gzip.compress(b" " * (MOST // 2))
    assert len(read(2 * member, content_encoding="gzip")) == MOST
    for packed in (3 * member, gzip.compress(b" " * 50_000_000, mtime=0)):
        with pytest.raises(TooLarge):
            read(packed, content_encoding="gzip")


@pytest.mark.parametrize("last", [b"", b"{}"])
def test_members_that_hold_nothing_cost_no_more_than_so_many_of_them(last: bytes) -> None:
    empty, end = gzip.compress(b"", mtime=0), gzip.compress(last, mtime=0)
    assert read((MOST_MEMBERS - 1) * empty + end, content_encoding="gzip") == last
    start = time.process_time()
    with pytest.raises(Problem, match=f"more than {MOST_MEMBERS} members; pack the body as one"):
        read(100_000 * empty + end, content_encoding="gzip")
    assert time.process_time() - start < 0.5


@pytest.mark.parametrize("size", range(PIECE - 40, PIECE + 4))
def test_a_member_may_end_anywhere_in_a_piece(size: int) -> None:
    content = b"{" + b"7" * (2 * PIECE)
    stored = gzip.compress(content[:size], compresslevel=0, mtime=0)
    both = stored + gzip.compress(content[size:], mtime=0)
    assert json_of(scope(content_encoding="gzip"), both, None, len(content)) == content


@pytest.mark.parametrize("kind", ["application/json", "APPLICATION/JSON", "application/x+json; charset=UTF-8"])
def test_json_goes_by_several_types(kind: str) -> None:
    assert read(b"{}", content_type=kind) == b"{}"


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (415, b"{}", {"content_type": "text/plain"}),
        (415, b"{}", {"content_type": "application/x-www-form-urlencoded"}),
        (415, b"{}", {"content_type": "multipart/form-data; boundary=x"}),
        (415, b"{}", {"content_type": "application/json; charset=latin-1"}),
        (415, b"{}", {"content_type": "application/json; charset=none-such"}),
        (415, b"{}", {"content_encoding": "br"}),
        (400, b"{}", {"content_encoding": "gzip"}),
        (400, gzip.compress(b"{}", mtime=0)[:-3], {"content_encoding": "gzip"}),
        (400, gzip.compress(b"{}", mtime=0) + b"more", {"content_encoding": "gzip"}),
        (400, zlib.compress(b"{}") + b"more", {"content_encoding": "deflate"}),
        (400, b"{}{", {"content_type": "application/json; charset=utf-16"}),
        (400, b'{"a": "\\ud800"}', {}),
        (400, b'{"a": "\xff"}', {}),
        (400, b"[" * 260 + b"]" * 260, {}),
    ],
)
def test_what_is_no_json_is_refused(status: int, body: bytes, headers: dict[str, str]) -> None:
    assert refused(body, **headers) == status
