"""Vectors as callers send them, and the codewords that they are near."""

import math
from base64 import b64encode
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.encoding.reading import PLAIN
from service.encoding.values import EventError
from service.encoding.vectors import Codebook, as_text, load, matrix, names, numbers_of_text, save

GOOD = [0.5, -1.0, 2.0, 0.25, 3.0]  # as float16 has them


def book(width: int = 5, parts: int = 2, words: int = 4, normed: bool = False, scale: float = 1.0) -> Codebook:
    d = -(-width // parts)
    drawn = np.random.default_rng(width).normal(size=(parts, words, d)).astype(np.float16)
    drawn[-1, -1] = np.nan  # the last part has one codeword fewer
    drawn[-1, :, d - (parts * d - width) :] *= 0  # what fills up the vector
    return Codebook("picture", width, normed, scale, drawn)


def test_lists_arrays_and_base64_are_read_alike() -> None:
    text = b64encode(np.array(GOOD, dtype="<f2").tobytes()).decode()
    assert as_text(np.array(GOOD)) == text
    assert numbers_of_text(text) == GOOD
    for values in ([GOOD, text, np.array(GOOD)], [text, text], [[*map(int, GOOD)], GOOD]):
        found, at, unreadable = matrix("picture", 5, values, PLAIN.is_missing)
        assert found[-1].tolist() == GOOD
        assert (at.tolist(), unreadable) == (list(range(len(values))), [])


@pytest.mark.parametrize(
    "value",
    [
        GOOD[:4],
        [*GOOD, 1.0],
        [],
        [GOOD],
        [[n] for n in GOOD],
        [0.5, -1.0, None, 0.25, 3.0],
        [0.5, -1.0, "2", 0.25, 3.0],
        [*GOOD[:4], math.nan],
        [*GOOD[:4], -math.inf],
        [*GOOD[:4], 1e300],
        [*GOOD[:4], 10**400],
        as_text(np.array([*GOOD[:4], math.nan])),
        as_text(np.array([*GOOD[:4], math.inf])),
        as_text(np.array(GOOD[:4])),
        as_text(np.array(GOOD))[:-4],
        "kitten",
        'AAAA","AAAA',
        "\\u0041" + as_text(np.array(GOOD))[1:],
        "\ud800",
        "Größe",
        3.5,
        True,
    ],
)
def test_what_is_no_vector_is_unreadable_and_spoils_no_neighbour(value: object) -> None:
    for others in (GOOD, as_text(np.array(GOOD))):
        codes, at, unreadable = book().read([others, value, others], PLAIN.is_missing)
        assert (at.tolist(), unreadable) == ([0, 2], [1])
        assert codes[0].tolist() == codes[1].tolist()


drawn = st.sampled_from([as_text(np.array([*GOOD[:4], float(n)])) for n in range(6)])
# texts that JSON would take for one vector, or for two
MIMICS = ["\\u0041" + as_text(np.array(GOOD))[1:], '","'.join([as_text(np.array(GOOD))] * 2), 'AAAA"', "AAAA\\"]
odd = st.sampled_from([None, "", "kitten", GOOD, as_text(np.zeros(5)), 3.5, *MIMICS])


@given(st.lists(st.lists(drawn | odd, max_size=8), max_size=6))
def test_what_was_read_before_is_read_the_same(columns: list[list[object]]) -> None:
    same = book()
    for values in columns:
        codes, at, unreadable = same.read(values, PLAIN.is_missing)
        anew, at_anew, unreadable_anew = book().read([*values, GOOD], PLAIN.is_missing)  # no text alone, so all anew
        assert codes.tolist() == anew[:-1].tolist()
        assert (at.tolist(), unreadable) == (at_anew[:-1].tolist(), unreadable_anew)
        for place, value in enumerate(values):  # nor does it matter beside what a value stands
            alone, there, wrong = book().read([value], PLAIN.is_missing)
            assert alone.tolist() == codes[at == place].tolist()
            assert (len(there), bool(wrong)) == (place in at, place in unreadable)


def test_what_is_remembered_of_vectors_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.encoding.vectors.MOST_KNOWN", 100 * (8 * 5 // 3 + 1))
    same = book()
    for start in range(0, 1000, 10):
        same.read([as_text(np.array([*GOOD[:4], float(n)])) for n in range(start, start + 10)], PLAIN.is_missing)
        assert len(same.known) <= 100


@pytest.mark.parametrize("value", [None, math.nan, "", " n/a ", [0.0] * 5, [0, 0, 0, 0, 0], as_text(np.zeros(5))])
def test_a_vector_may_be_missing(value: object) -> None:
    codes, at, unreadable = book().read([value], PLAIN.is_missing)
    assert (len(codes), at.tolist(), unreadable) == (0, [], [])


def test_an_object_is_refused_with_what_is_needed() -> None:
    with pytest.raises(EventError, match="event 1, field 'picture': a list of 5 finite numbers, base64") as raised:
        book().read([GOOD, {"0": 1.0}], PLAIN.is_missing)
    assert (raised.value.index, raised.value.field) == (1, "picture")


def test_each_number_of_sixteen_bits_is_read_from_base64_as_numpy_reads_it() -> None:
    every = np.arange(1 << 16, dtype="<u2").view("<f2")
    found, *_ = matrix("picture", 1 << 16, [b64encode(every.tobytes()).decode()], PLAIN.is_missing)
    finite = np.isfinite(every)
    assert (found[0][finite] == every[finite].astype(np.float32)).all()
    assert not np.isfinite(found[0][~finite]).any()


@given(
    st.integers(1, 9).flatmap(
        lambda width: st.tuples(
            st.lists(st.lists(st.floats(-9, 9, width=16), min_size=width, max_size=width), min_size=1, max_size=6),
            st.integers(1, width),
        )
    ),
    st.booleans(),
)
def test_the_codewords_are_the_nearest_and_stand_for_the_vector(
    drawn: tuple[list[list[float]], int], normed: bool
) -> None:
    vectors, parts = drawn
    width = len(vectors[0])
    d = -(-width // parts)
    codebook = book(width, -(-width // d), normed=normed, scale=1.0 if normed else 2.0)
    codes, at, unreadable = codebook.read(vectors, PLAIN.is_missing)
    assert unreadable == []
    assert at.tolist() == [t for t, vector in enumerate(vectors) if any(vector)]
    for of, place in zip(codes.tolist(), at.tolist(), strict=True):
        vector = np.array(vectors[place]) / (np.linalg.norm(vectors[place]) if normed else 2.0)
        for part, code in enumerate(of):
            own = np.zeros(d)
            own[: len(vector[part * d : part * d + d])] = vector[part * d : part * d + d]
            apart = ((codebook.words[part].astype(np.float64) - own) ** 2).sum(axis=1)
            assert code < codebook.sizes[part]
            assert apart[code] <= np.nanmin(apart) + 1e-4
    for of in codes[:1]:
        again, *_ = codebook.read([codebook.vector(of)], PLAIN.is_missing)
        if len(again) and not normed:
            assert (again[0] == of).all()


def test_vectors_share_a_name_where_they_have_the_same_codewords() -> None:
    codes = np.array([[1, 17], [1, 17], [17, 1]], dtype=np.uint8)
    assert names(codes, np.array([0, 2, 3]), 5) == ["kind 0111", None, "kind 0111", "kind 1101", None]


def test_codebooks_are_kept_as_arrays_and_come_back_the_same(tmp_path: Path) -> None:
    books = {"picture": book(), "so und/": Codebook("so und/", 3, True, 1.5, np.ones((3, 1, 1), dtype=np.float16))}
    save(tmp_path / "codebooks.npz", books)
    found = load(tmp_path / "codebooks.npz")
    assert {name: one.mark for name, one in found.items()} == {name: one.mark for name, one in books.items()}
    assert [one.sizes for one in found.values()] == [[4, 3], [1, 1, 1]]
    assert found["picture"].mark != found["so und/"].mark
