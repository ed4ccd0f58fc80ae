"""What is learned of a log's vectors."""

from typing import Any

import numpy as np
import polars as pl
import pytest

from service.encoding.codewords import Codeword
from service.encoding.fields import FIRST, Repeat
from service.encoding.vocabulary import Vocabulary
from training.data.kinds import CATEGORICAL, VECTOR, Held
from training.data.log import Log
from training.fit.codebooks import PARTS, WORDS, fit_codebooks, kinds_for_vectors
from training.fit.encoder import SEVERAL, fit_encoder

RNG = np.random.default_rng(0)


def log_of(vectors: "np.ndarray[Any, Any]", of_each: int = 4, **more: "np.ndarray[Any, Any]") -> Log:
    """A log with so many events a sequence, and a column for each array."""
    given = {"picture": vectors, **more}
    columns = {name: pl.Series(v.tolist(), dtype=pl.Array(pl.Float64, v.shape[1])) for name, v in given.items()}
    ids = [f"s{i // of_each}" for i in range(len(vectors))]
    held = {name: Held(VECTOR, "") for name in given}
    return Log.of(pl.DataFrame({"sequence_id": ids, "action": "a", **columns}), held=held)


@pytest.mark.parametrize("width", [1, 2, 7, 8, 13, 100])
def test_vectors_of_any_length_become_parts(width: int) -> None:
    log = log_of(RNG.normal(size=(200, width)))
    book = fit_codebooks(log, SEVERAL)["picture"]
    parts, words, d = book.words.shape
    assert parts * d >= width > (parts - 1) * d
    assert parts <= PARTS
    assert max(book.sizes) == words <= WORDS
    assert book.width == width
    fields = fit_encoder(log, None, 128).fields
    assert [f.name for f in fields if isinstance(f, Codeword)] == [f"picture part {k + 1}" for k in range(parts)]


def test_lengths_are_left_out_where_all_are_much_the_same() -> None:
    drawn = RNG.normal(size=(200, 16))
    of_one = drawn / np.linalg.norm(drawn, axis=1, keepdims=True) * 7
    of_many = of_one * RNG.lognormal(0, 1, (200, 1))
    books = fit_codebooks(log_of(of_one, other=of_many), SEVERAL)
    assert (books["picture"].normed, books["other"].normed) == (True, False)
    large = fit_codebooks(log_of(of_many * 1e6), SEVERAL)["picture"]  # beyond what float16 holds
    assert np.isfinite(large.words).any()
    assert (np.abs(large.vector([0] * len(large.sizes))) > 1e5).any()
    long = np.linalg.norm(large.vector([0] * len(large.sizes))) / np.linalg.norm(of_many * 1e6, axis=1)
    assert long.min() < 1 < long.max()


def test_codewords_are_as_many_as_what_is_different() -> None:
    few = RNG.normal(size=(3, 16))[RNG.integers(0, 3, 200)]
    book = fit_codebooks(log_of(few), SEVERAL)["picture"]
    assert set(book.sizes) == {3}
    assert (
        np.abs(book.vector(book.read([few[0]], lambda _: False)[0][0]) * np.linalg.norm(few[0]) - few[0]).max() < 0.01
    )


def test_no_codeword_is_of_fewer_accounts_than_are_asked_for_and_each_account_counts_once() -> None:
    common = np.repeat([[1.0, 0.0], [0.0, 1.0]], 40, axis=0) + RNG.normal(size=(80, 2)) * 0.01
    alone = np.tile([[-1.0, 0.0]], (80, 1))  # one account's, again and again
    log = log_of(np.concatenate((common, alone)), of_each=1)
    log = Log.of(log.events.with_columns(sequence_id=pl.Series([f"s{min(i, 80)}" for i in range(160)])), held=log.held)
    book = fit_codebooks(log, 5)["picture"]
    words = [book.words[k, : book.sizes[k], 0].astype(float).tolist() for k in range(2)]
    assert min(words[0]) > -0.2
    assert fit_codebooks(log_of(alone), 21) == {}


def test_what_accounts_share_is_an_identifier_and_what_they_do_not_is_none() -> None:
    catalogue = RNG.normal(size=(90, 24))
    shared = catalogue[RNG.integers(0, 90, 400)] + RNG.normal(size=(400, 24)) * 1e-3
    log = log_of(shared, text=RNG.normal(size=(400, 24)))
    encoder = fit_encoder(log, None, 128)
    [alike] = encoder.vocabularies
    assert (alike.name, alike.identifier) == ("picture", True)
    assert any(isinstance(f, Repeat) and f.column == "picture" for f in encoder.fields)
    one = encoder.encode({"picture": [catalogue[0], None, (catalogue[0] * 1.001).tolist()]}, 3)
    [s] = [s for s in encoder.of("event") if s.field.name == "picture"]
    ids = one.rows[1:, s.slot] - s.start
    assert ids[0] == ids[2] >= FIRST
    assert len(one.held.keys) == 2


def test_few_kinds_are_a_category() -> None:
    few = RNG.normal(size=(5, 8))[RNG.integers(0, 5, 200)]
    [alike] = fit_encoder(log_of(few), None, 128).vocabularies
    assert isinstance(alike, Vocabulary)
    assert not alike.identifier
    assert len(alike.values) == 5


def test_a_refit_reads_vectors_as_before() -> None:
    log = log_of(RNG.normal(size=(90, 24))[RNG.integers(0, 90, 400)])
    old = fit_encoder(log, None, 128)
    new = fit_encoder(log.subset(np.arange(50)), None, 128, old)
    assert new.reading.codebooks["picture"] is old.reading.codebooks["picture"]
    values = {"picture": log.whole[0]["picture"][:8]}
    rows = [e.encode(values, 8).rows[1:] for e in (old, new)]
    parts = [s.slot for s in old.of("event") if isinstance(s.field, Codeword)]
    assert (rows[0][:, parts] == rows[1][:, parts]).all()


def test_for_methods_that_read_no_vectors_those_that_are_alike_have_one_name() -> None:
    catalogue = RNG.normal(size=(5, 8))
    of = RNG.integers(0, 5, 200)
    log = log_of(catalogue[of])
    read = kinds_for_vectors(log)
    named = read(log).events["picture"].to_list()
    assert len({*zip(named, of.tolist(), strict=True)}) == len(set(named)) == 5
    assert read(log).kinds["picture"] == CATEGORICAL
    other = read(log_of(catalogue[[3, 0]] * 1.001, of_each=1))
    assert other.events["picture"].to_list() == [named[of.tolist().index(3)], named[of.tolist().index(0)]]
    assert read(Log.of(log.events.drop("picture"), held=log.held)).events.columns == ["sequence_id", "action", "ts"]
