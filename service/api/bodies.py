"""The one reader of request bodies: what a client may say a body is, and how the JSON in it is found.

A body is JSON, in any of the encodings of Unicode, with or without a byte order mark, as it is or packed with gzip or
deflate. It is taken without a Content-Type; another type than JSON's is refused, since a form of a foreign page can
send those types and no other without asking first.
"""

import codecs
import json
import zlib
from collections.abc import Mapping
from email.message import Message
from typing import Any

from pydantic_core import from_json

from service.api.auth import header
from service.schemas.problems import Problem

UNICODE = {"ascii", "utf-8", "utf-8-sig", *(f"utf-{bits}{end}" for bits in (16, 32) for end in ("", "-le", "-be"))}
PACKED = {"gzip": 31, "x-gzip": 31, "deflate": 15}  # encodings, with zlib's window bits for each

MOST_MEMBERS = 2000  # of a body's gzip: each costs time, also one that holds nothing
PIECE = 16_384  # bytes unpacked at once; zlib copies what follows the end of a member


class TooLarge(Exception):
    """A body that is larger than it may be once it is unpacked."""


def charset_of(scope: Mapping[str, Any]) -> str | None:
    """The encoding of characters that an ASGI request names; None if it names none.

    Raises:
        Problem: 415 if the body is no JSON by its type, or in an encoding that JSON does not have.
    """
    given = header(scope, b"content-type")
    if not given:
        return None
    message = Message()
    message["Content-Type"] = given.decode("latin-1")
    kind = message.get_content_type()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise Problem(415, f"Content-Type {kind}: bodies are JSON; send Content-Type: application/json, or none")
    charset = message.get_content_charset()
    if charset is None:
        return None
    try:
        name = codecs.lookup(charset).name
    except LookupError:
        name = charset
    if name not in UNICODE:
        raise Problem(415, f"charset {charset}: JSON is Unicode; send UTF-8")
    return name


def json_of(scope: Mapping[str, Any], body: bytes, charset: str | None, most: int) -> bytes:
    """The JSON of a body, in UTF-8 and without a byte order mark; whether it is JSON is not looked at.

    Args:
        scope: the ASGI request.
        body: as it was sent.
        charset: what `charset_of` said.
        most: largest size in bytes once it is unpacked.

    Raises:
        Problem: 400 if it cannot be unpacked or decoded, 415 if it is packed in another way.
        TooLarge: it would be larger.
    """
    if encoding := header(scope, b"content-encoding"):
        body = _unpacked(encoding.decode("latin-1"), body, most)
    if charset is None:
        if body[:1] == b"{" and body[1:2] != b"\0":
            return body  # as nearly all are
        charset = json.detect_encoding(body)
    if charset in ("utf-8", "ascii"):
        return body.removeprefix(codecs.BOM_UTF8)
    try:
        return body.decode(charset).removeprefix("\ufeff").encode()
    except UnicodeError as error:
        raise Problem(400, f"the body is not {charset}: {error}") from None


def checked(body: bytes) -> None:
    """Raises Problem 400 unless a body is JSON without half characters and not nested too deep."""
    try:
        from_json(body)
    except ValueError as error:
        raise Problem(400, f"the body is not JSON: {error}") from None


def _unpacked(encoding: str, body: bytes, most: int) -> bytes:
    """A packed body unpacked, with all members of its gzip; stops at the size limit of a body."""
    name = encoding.strip().lower()
    if name == "identity":
        return body
    if name not in PACKED:
        raise Problem(415, f"Content-Encoding {encoding!r}: bodies are taken as they are, or with gzip or deflate")
    bits = PACKED[name]
    if name == "deflate" and (len(body) < 2 or body[0] & 15 != 8 or int.from_bytes(body[:2], "big") % 31):
        bits = -15  # without zlib's header, as some clients understand "deflate"
    found, rest = bytearray(), memoryview(body)
    for _ in range(MOST_MEMBERS):
        unpacker = zlib.decompressobj(wbits=bits)
        try:
            while rest and not unpacker.eof:
                piece, rest = rest[:PIECE], rest[PIECE:]
                found += unpacker.decompress(piece, most + 1 - len(found))
                if len(found) > most:
                    raise TooLarge
        except zlib.error as error:
            raise Problem(400, f"the body is not {name}: {error}") from None
        if not unpacker.eof:
            raise Problem(400, f"the body's {name} ends too early")
        rest = memoryview(body)[len(body) - len(rest) - len(unpacker.unused_data) :]
        if not rest:
            return bytes(found)
        if bits != PACKED["gzip"]:
            raise Problem(400, f"{len(rest)} bytes follow the end of the body's {name}")
    raise Problem(400, f"the body's gzip has more than {MOST_MEMBERS} members; pack the body as one")
