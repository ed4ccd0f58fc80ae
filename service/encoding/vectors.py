"""Vectors, such as the embedding of an image, a sound or a text: how values of them are read, and cut into codewords.

A vector says little number by number. Product quantisation cuts it into parts and names for each part the nearest of a
few codewords, which training learned: Jégou, Douze and Schmid, "Product quantization for nearest neighbor search", IEEE
TPAMI 2011. `codewords` makes table rows of these names, `training.fit.codebooks` learns them.
"""

import hashlib
import json
import re
from binascii import b2a_base64
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from struct import Struct
from struct import error as NotPacked
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic_core import SchemaValidator, core_schema

from service.encoding.values import EventError

Vectors = NDArray[np.float32]
BEYOND = 65536.0  # what NaN and infinities of float16 are read as, and no number is
MOST_KNOWN = 16 << 20  # characters of texts whose codewords a codebook remembers
MOST_WORDS = 256  # codewords of a part, so that each has two digits of a kind
# a list of base64 texts from JSON to bytes, which is several times as fast as Python's own
_BASE64 = SchemaValidator(
    core_schema.list_schema(core_schema.bytes_schema()), core_schema.CoreConfig(val_json_bytes="base64")
)


_NUMBERED = re.compile(r"(.+)\.(0|[1-9]\d*)", re.DOTALL)


@dataclass(frozen=True, eq=False)
class Codebook:
    """How the vectors of a column are read.

    Attributes:
        column: the column.
        width: numbers of a vector, D.
        normed: whether each vector is brought to length 1, as its length tells nothing.
        scale: what the others are divided by.
        words: float16 (M, K, d), the K codewords of each of M parts of d numbers, M d >= D, as if zeros filled up the
            vector; NaN behind those of a part that has fewer.
    """

    column: str
    width: int
    normed: bool
    scale: float
    words: NDArray[np.float16]

    @cached_property
    def sizes(self) -> list[int]:
        """M, the codewords of each part."""
        return [int(count) for count in (~np.isnan(self.words[:, :, 0])).sum(axis=1)]

    @cached_property
    def mark(self) -> str:
        """Stands for what the codewords mean: the same only for the same codebook."""
        told = json.dumps([self.column, self.width, self.normed, self.scale]).encode()
        return hashlib.blake2b(told + self.words.tobytes(), digest_size=8).hexdigest()

    @cached_property
    def _weights(self) -> tuple[Vectors, Vectors]:
        """Float32 (M, d, K) the codewords, and (M, 1, K) half their squared lengths, infinite where none is."""
        words = self.words.astype(np.float32)
        half = (words**2).sum(axis=2)[:, None, :] / 2
        there = ~np.isnan(half)
        return np.where(there, words.transpose(0, 2, 1), 0.0).copy(), np.where(there, half, np.inf)

    @cached_property
    def known(self) -> dict[object, bytes]:
        """The codewords of texts that were read before, as the picture of an item is sent again with each event."""
        return {}

    def nearest(self, vectors: Vectors, lengths: Vectors) -> NDArray[np.uint8]:
        """Uint8 (R, M), the nearest codeword of each part of vectors, float32 (R, D), whose lengths are not 0."""
        words, half = self._weights
        parts, d, _ = words.shape
        if vectors.shape[1] < parts * d:
            vectors = np.pad(vectors, ((0, 0), (0, parts * d - vectors.shape[1])))
        # |x / s - w|^2 is least where x w - s |w|^2 / 2 is greatest, for s > 0
        scores = np.matmul(vectors.reshape(-1, parts, d).transpose(1, 0, 2), words)
        scores -= half * (lengths[:, None] if self.normed else np.float32(self.scale))
        found: NDArray[np.uint8] = scores.argmax(axis=2).T.astype(np.uint8)
        return found

    def read(
        self, values: Sequence[object], is_missing: Callable[[object], bool]
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64], list[int]]:
        """The codewords of a column's values.

        A vector of zeros is missing, as it has no direction.

        Returns:
            uint8 (R, M), the codewords; int64 (R,), the places of the vectors; the places of what is no vector.

        Raises:
            EventError: a value is an object.
        """
        codes = self.known
        try:
            found = list(map(codes.get, values))
        except TypeError:  # a list has no hash
            return self._read(values, is_missing)
        wrong = set[object]()
        fresh = [v for v in dict.fromkeys(values) if v is not None and v not in codes] if None in found else []
        if fresh:
            room = MOST_KNOWN // (8 * self.width // 3 + 1)  # for texts of such vectors, in base64
            if len(fresh) > room or set(map(type, fresh)) != {str}:
                return self._read(values, is_missing)
            if len(codes) + len(fresh) > room:  # others may still read what the old ones hold
                codes = vars(self)["known"] = {}
            rows, good, unreadable = self._read(fresh, is_missing)
            packed, parts = rows.tobytes(), rows.shape[1]
            new = {fresh[at]: packed[k * parts : (k + 1) * parts] for k, at in enumerate(good.tolist())}
            codes |= new
            if len(fresh) == len(values):  # then they stand where they stood
                return rows, good, unreadable
            wrong = {fresh[at] for at in unreadable}
            found = [new.get(value) if of is None else of for value, of in zip(values, found, strict=True)]
        told = np.frombuffer(b"".join(filter(None, found)), dtype=np.uint8).reshape(-1, len(self.words))
        at = np.arange(len(found))
        if len(told) < len(found):
            at = np.array([place for place, of in enumerate(found) if of is not None], dtype=np.int64)
        return told, at, [place for place, value in enumerate(values) if value in wrong] if wrong else []

    def _read(
        self, values: Sequence[object], is_missing: Callable[[object], bool]
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64], list[int]]:
        vectors, at, unreadable = matrix(self.column, self.width, values, is_missing)
        lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
        if not (good := (lengths > 0) & (lengths < np.inf)).all():
            unreadable = sorted(unreadable + at[~(lengths < np.inf)].tolist())
            vectors, at, lengths = vectors[good], at[good], lengths[good]
        return self.nearest(vectors, lengths), at, unreadable

    def vector(self, codes: Sequence[int]) -> Vectors:
        """Float32 (D,), the vector that its codewords, one for each part, stand for."""
        whole: Vectors = np.concatenate([self.words[part, code] for part, code in enumerate(codes)])[: self.width]
        return whole.astype(np.float32) * np.float32(self.scale)


def vector_names(names: Iterable[str]) -> dict[str, list[str]]:
    """The columns `name.0`, `name.1`, ... that together may be a vector, two or more, by `name`."""
    found: dict[str, dict[int, str]] = defaultdict(dict)
    given = list(names)
    for name in given:
        if match := _NUMBERED.fullmatch(name):
            found[match[1]][int(match[2])] = name
    return {
        name: [parts[k] for k in range(len(parts))]
        for name, parts in found.items()
        if len(parts) > 1 and max(parts) == len(parts) - 1 and name not in given
    }


def needed(width: int) -> str:
    """What belongs in a column of vectors."""
    return f"a list of {width} finite numbers, base64 of as many little-endian float16, or null is needed"


def matrix(
    column: str, width: int, values: Sequence[object], is_missing: Callable[[object], bool]
) -> tuple[Vectors, NDArray[np.int64], list[int]]:
    """The vectors among a column's values: lists of numbers, arrays, or base64 of float16 in little-endian order.

    Returns:
        float32 (R, D), the vectors, in which NaN and infinities are as they came; int64 (R,), their places; the places
        of what is neither missing nor a vector.

    Raises:
        EventError: a value is an object.
    """
    texts = [value for value in values if isinstance(value, str)]
    if texts and len(texts) == len(values) and (found := _texts(texts, width)) is not None:
        return found, np.arange(len(values)), []
    pack = Struct(f"<{width}f").pack
    rows, at, unreadable = list[bytes](), list[int](), list[int]()
    for place, value in enumerate(values):
        if value is None:
            continue
        if isinstance(value, dict):
            raise EventError(place, column, needed(width))
        if (row := _row(value, width, pack)) is not None:
            rows.append(row)
            at.append(place)
        elif isinstance(value, list | np.ndarray) or not is_missing(value):
            unreadable.append(place)
    found = np.frombuffer(b"".join(rows), dtype="<f4").reshape(-1, width)
    return found, np.array(at, dtype=np.int64), unreadable


def _row(value: object, width: int, pack: Callable[..., bytes]) -> bytes | None:
    """The float32 of one vector; None where it is none."""
    try:
        if isinstance(value, list):
            return pack(*value)
        if isinstance(value, str):
            packed = _decoded([value])
            return _of_halves(packed[0]).tobytes() if packed and len(packed[0]) == 2 * width else None
        if isinstance(value, np.ndarray) and value.shape == (width,):
            return value.astype("<f4").tobytes()
    except (NotPacked, OverflowError):
        pass
    return None


def numbers_of_text(text: str) -> list[float]:
    """The float16 that a base64 text holds; none where it is no such text."""
    packed = _decoded([text.strip()])
    if packed is None or len(packed[0]) % 2:
        return []
    numbers: list[float] = np.frombuffer(packed[0], dtype="<f2").astype(np.float64).tolist()
    return numbers


def _decoded(texts: Sequence[str]) -> list[bytes] | None:
    """What base64 texts hold; None where one is no such text."""
    whole = "".join(texts)
    if '"' in whole or "\\" in whole:  # no base64, and JSON would take the texts for others
        return None
    try:
        found: list[bytes] = _BASE64.validate_json('["' + '","'.join(texts) + '"]')
    except ValueError:
        return None
    return found


def _texts(texts: Sequence[str], width: int) -> Vectors | None:
    """Float32 (T, D) of base64 texts, read all at once; None where one is no vector."""
    packed = _decoded(texts)
    if packed is None or set(map(len, packed)) != {2 * width}:
        return None
    return _of_halves(b"".join(packed)).reshape(-1, width)


def _of_halves(packed: bytes) -> Vectors:
    """Float32 of little-endian float16; NaN and infinities become NaN. Four times as fast as numpy's own conversion."""
    halves = np.frombuffer(packed, dtype="<i2")
    wide = halves.astype(np.int32)
    wide <<= 13  # the sign is kept by its copies, and exponent and mantissa are where float32 has them
    wide &= np.int32(-(2**31) | 0x0FFFE000)
    found = wide.view(np.float32)
    found *= np.float32(2.0**112)  # the difference of the exponents' offsets
    if found.max(initial=0.0) >= BEYOND or found.min(initial=0.0) <= -BEYOND:
        found[np.abs(found) >= BEYOND] = np.nan
    return found


def as_text(vector: NDArray[np.floating]) -> str:
    """Base64 of a vector's little-endian float16, as requests may have it."""
    return b2a_base64(vector.astype("<f2").tobytes(), newline=False).decode()


def names(codes: NDArray[np.uint8], at: NDArray[np.int64], length: int) -> list[str | None]:
    """What vectors are called by their codewords, None where there is none: those that are much alike share a name.

    Args:
        codes: uint8 (R, M), the codewords.
        at: int64 (R,), their places among `length`.
    """
    found: list[str | None] = [None] * length
    digits, step = codes.tobytes().hex(), 2 * codes.shape[1]
    for k, place in enumerate(at.tolist()):
        found[place] = f"kind {digits[k * step : (k + 1) * step]}"
    return found


def save(path: Path, books: Mapping[str, Codebook]) -> None:
    """Writes codebooks as arrays alone."""
    arrays: dict[str, Any] = {}
    for number, book in enumerate(books.values()):
        told = json.dumps([book.column, book.width, book.normed, book.scale])
        arrays[f"told_{number}"] = np.frombuffer(told.encode(), dtype=np.uint8)
        arrays[f"words_{number}"] = book.words
    np.savez(path, **arrays)


def load(path: Path) -> dict[str, Codebook]:
    """Reads codebooks by their columns; raises ValueError, KeyError or OSError where it cannot."""
    with np.load(path, allow_pickle=False) as arrays:
        pairs = [(arrays[f"told_{k}"], arrays[f"words_{k}"]) for k in range(len(arrays.files) // 2)]
    found: dict[str, Codebook] = {}
    for told, words in pairs:
        column, width, normed, scale = json.loads(told.tobytes())
        found[column] = Codebook(column, width, normed, scale, words)
    return found
