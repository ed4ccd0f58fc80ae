"""What accounts did, as bytes that one process tells another.

A record is a digest of its content under the crowd's secret, and then for each account its number, when it began, what
it had named before, how many identifiers it named now, and these: their keys, their sided keys, and when. No
identifiers: the account is forgotten. The number in the stream's name is that of this format.
"""

import hashlib
import struct
from collections.abc import Sequence

import numpy as np

from service.encoding.held import Held
from service.model.looks import News

HEAD = struct.Struct("<qdQI")
DIGEST = 8  # bytes


def pack(told: Sequence[News], secret: bytes) -> bytes:
    """A record of what accounts did."""
    parts = []
    for one in told:
        held = one.held
        parts.append(HEAD.pack(one.account, one.first, one.before, 0 if held is None else len(held.keys)))
        if held is not None:
            parts += [held.keys.tobytes(), held.sided.tobytes(), held.ts.tobytes()]
    content = b"".join(parts)
    return _digest(content, secret) + content


def unpack(record: bytes, secret: bytes) -> list[News]:
    """What a record tells; raises ValueError if it is damaged, or was made under another secret."""
    content = record[DIGEST:]
    if record[:DIGEST] != _digest(content, secret):
        raise ValueError("a record is damaged, or was written under another RECGUARD_CROWD_KEY")
    told, at = [], 0
    while at < len(content):
        account, first, before, count = HEAD.unpack_from(content, at)
        at += HEAD.size
        keys = np.frombuffer(content, np.uint64, 2 * count, at)
        ts = np.frombuffer(content, np.float64, count, at + keys.nbytes)
        at += keys.nbytes + ts.nbytes
        held = Held(keys[:count], keys[count:], ts, np.arange(count, dtype=np.int32), count)
        told.append(News(account, first, before, held if count else None))
    return told


def _digest(content: bytes, secret: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=DIGEST, key=secret, person=b"record").digest()
