"""Sites in threads and the server between them, without a network: what is sums, what is seen, and who spoils it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.support.sites import Work, each, met
from training.data.kinds import VECTOR, Held
from training.data.log import Log
from training.distributed.federation import FederationError, Meeting, Site, bounded_mean, pack, unpack
from training.fit import agreed
from training.fit.encoder import fit_encoder
from training.fit.logistic import of_all
from training.fit.moments import mean_and_scale, quantiles, shrunk_covariance
from training.sites import Floats, averaged, joined, voice

numbers = st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3)


@settings(deadline=None, max_examples=15)
@given(st.lists(numbers, min_size=3, max_size=5))
def test_a_sum_is_that_of_the_parts_and_the_server_sees_none_of_them(parts: list[list[float]]) -> None:
    works: dict[str, Work] = {f"s{k}": lambda site, p=p: site.total(np.array(p)) for k, p in enumerate(parts)}  # type: ignore[misc]
    found, seen = met(works)
    for total in found.values():
        assert np.allclose(total, np.sum(parts, axis=0), atol=1e-5)
    sums = [arrays[0] for head, arrays in map(unpack, seen) if head["do"] == "sum"]
    assert len(sums) == len(parts)
    near = [np.abs(array.view(np.int64) / 2.0**24).max() < 2e6 for array in sums]
    assert not any(near), "masked numbers are spread over all 64 bits"


def silent(site: Site) -> None:
    """Leaves after it has joined."""


def test_a_site_that_sends_nothing_is_left_out_and_the_masks_of_the_others_still_cancel() -> None:
    def sums(site: Site) -> list[float]:
        return [site.total(np.full(4, k + 1.0)).tolist() for k in range(3)]

    found, _ = met({"a": sums, "b": sums, "c": sums, "gone": silent})
    assert found["a"] == found["b"] == found["c"] == [[3.0 * (k + 1)] * 4 for k in range(3)]


def test_a_site_whose_part_is_not_a_number_leaves_and_spoils_no_sum() -> None:
    def one(site: Site) -> list[float]:
        return site.total(np.ones(2)).tolist()

    def nan(site: Site) -> list[float]:
        return site.total(np.array([1.0, np.nan])).tolist()

    found, _ = met({"a": one, "b": one, "bad": nan})
    assert found["a"] == found["b"] == [2.0, 2.0]
    assert isinstance(found["bad"], FederationError)
    assert "not finite" in str(found["bad"])


def test_what_is_of_another_form_is_left_out_and_hears_why() -> None:
    def one(site: Site) -> list[float]:
        return site.total(np.ones(2)).tolist()

    def longer(site: Site) -> list[float]:
        return site.total(np.ones(3)).tolist()

    def no_message(site: Site) -> None:
        unpack(site.exchange(b"\x93NUMPY no more"))

    found, _ = met({"a": one, "b": one, "c": one, "d": longer, "e": no_message})
    assert found["a"] == found["b"] == found["c"] == [3.0, 3.0]
    assert "left out" in str(found["d"])


def test_a_site_with_another_key_is_found_out_by_all() -> None:
    found, _ = met({"a": silent, "b": silent, "c": silent}, {"c": b"another"})
    assert {str(error) for error in found.values()} >= {"site c has another key; give all sites the same file"}


@pytest.mark.parametrize("sites", [["a"], ["b", "c"], ["a", "x"], []])
def test_a_server_that_leaves_a_site_alone_gets_no_sum_of_it(sites: list[str]) -> None:
    """What a site sends is hidden by what it shares with others, and by nothing else."""

    def lied_to(site: Site) -> Floats:
        site.exchange = lambda _: pack({"do": "again", "sites": sites})
        return site.total(np.array([3.0, 1.0, 4.0]))

    found, _ = met({"a": lied_to, "b": silent, "c": silent})
    assert "the server says" in str(found["a"])


def test_a_site_that_goes_by_other_sites_than_the_others_holds_up_nobody() -> None:
    def one(site: Site) -> list[float]:
        return site.total(np.ones(2)).tolist()

    def stubborn(site: Site) -> None:
        message = pack({"do": "sum", "step": 1, "sites": ["a", "b"]}, [np.ones(2, dtype=np.uint64)])
        while unpack(site.exchange(message))[0]["do"] != "out":
            pass

    found, _ = met({"a": one, "b": one, "c": one, "stubborn": stubborn})
    assert found["a"] == found["b"] == found["c"] == [3.0, 3.0]


def test_a_site_with_vectors_is_refused_with_the_fix() -> None:
    """Each site would cut them into codewords of its own."""
    drawn = np.random.default_rng(0).normal(size=(60, 3))
    frame = pl.DataFrame({"sequence_id": [f"s{i // 3}" for i in range(60)], "ts": np.arange(60.0)})
    frame = frame.with_columns(pl.Series("picture", drawn.tolist(), dtype=pl.Array(pl.Float64, 3)))
    log = Log.of(frame, held={"picture": Held(VECTOR, "")})

    def fit(site: Site) -> None:
        with joined(site):
            fit_encoder(log, None, 64)

    found, _ = met({"a": fit, "b": fit, "c": fit})
    assert all("--kinds picture=ignore" in str(error) for error in found.values())


def test_too_few_sites_end_it() -> None:
    with pytest.raises(FederationError, match="1 sites are left"):
        Meeting(["a", "b"]).answers({"a": pack({"do": "join"}), "b": None})


def weights_of(rng: np.random.Generator, count: int) -> list[list[NDArray[Any]]]:
    return [[1 + 0.1 * rng.normal(size=(4, 3)).astype(np.float32), np.arange(2)] for _ in range(count)]


@pytest.mark.parametrize("bad", [np.nan, np.inf, 10.0, -10.0])
def test_one_bad_site_moves_the_mean_weights_hardly(bad: float) -> None:
    parts = weights_of(np.random.default_rng(0), 5)
    without = bounded_mean(parts[1:], [1.0] * 4)
    spoilt = [[parts[0][0] * bad, parts[0][1]], *parts[1:]]
    mean = bounded_mean(spoilt, [1.0] * 5)
    assert np.isfinite(mean[0]).all()
    assert np.abs(mean[0] - without[0]).max() < 0.15
    plain = np.mean([part[0] for part in spoilt], axis=0)
    assert not np.isfinite(plain).all() or np.abs(plain - without[0]).max() > 1


@pytest.mark.parametrize("claimed", [10.0, np.inf, np.nan, -1.0, "many"])
def test_no_site_counts_for_more_than_twice_the_median(claimed: Any) -> None:
    parts = [[np.array([value], dtype=np.float32)] for value in (2.0, 1.0, 0.0)]
    mean = bounded_mean(parts, [claimed, 1.0, 1.0])[0][0]
    assert mean <= (2 * 2 + 1) / 4


def test_sites_that_are_alike_have_their_weighted_mean() -> None:
    parts = weights_of(np.random.default_rng(1), 4)
    mean = bounded_mean(parts, [1.0, 1.0, 1.0, 2.0])
    expected = np.average([part[0] for part in parts], axis=0, weights=[1, 1, 1, 2])
    assert np.allclose(mean[0], expected, atol=1e-6)
    assert mean[1].tolist() == [0, 1]


@dataclass(frozen=True)
class Own:
    """What a site of these tests has.

    Attributes:
        holders: how many of its accounts hold each value.
        points, label: float64 (N, 3) and int8 (N,), measures of accounts.
        weights: of its network.
    """

    holders: dict[str, int]
    points: Floats
    label: NDArray[np.int8]
    weights: list[NDArray[Any]]


def own_of(name: str) -> Own:
    rng = np.random.default_rng(ord(name))
    points = rng.normal(ord(name) % 3, 1, (60, 3))
    label = (points @ [1.0, -2.0, 0.5] + 0.3 * rng.normal(size=60) > 0).astype(np.int8)
    holders = {value: int(rng.integers(1, 9)) for value in "klmnopq"}
    return Own(holders, points, label, weights_of(rng, 1)[0])


def counted(own: Own) -> Floats:
    """How many accounts of all sites hold each value, in the order of the values."""
    vocabulary = agreed.vocabulary("item", own.holders, True, 2, 100)
    found = agreed.of_values(vocabulary, own.holders)
    return found[np.argsort(vocabulary.values)]


def tables(own: Own) -> Floats:
    low, high = quantiles(own.points[:, 0], np.ones((1, len(own.points))), (0.1, 0.9))[0]
    return np.concatenate((*mean_and_scale(own.points), shrunk_covariance(own.points).ravel(), [low, high]))


def linear(own: Own) -> Floats:
    return np.append(*of_all(own.points, own.label, np.ones(60)))


def network(own: Own) -> Floats:
    return averaged(own.weights, 60.0)[0].astype(np.float64).ravel()


SUMMED: dict[str, Callable[[Own], Floats]] = {
    "counts": counted,
    "tables": tables,
    "linear part": linear,
    "network": network,
}


def sends(site: Site, factor: float, after: int) -> None:
    """Makes a site multiply what it sends by a factor, after so many messages; where that is 0, it sends no more."""
    honest, sent = site.exchange, 0

    def exchange(message: bytes) -> bytes:
        nonlocal sent
        sent += 1
        if factor == 0 and sent > after:
            raise EOFError
        return honest(message)

    def total(part: Floats) -> Floats:
        return Site.total(site, part * factor if sent >= after and factor else part)

    def mean(parts: list[NDArray[Any]], weight: float) -> list[NDArray[Any]]:
        spoilt = [part * factor for part in parts] if np.isnan(factor) else parts
        return Site.averaged(site, spoilt, weight * (factor or 1.0))

    vars(site).update(exchange=exchange, total=total, averaged=mean)


def beside(kind: str, factor: float, after: int) -> dict[str, Any]:
    """What sites get of a sum beside one, "d", that spoils it."""

    def at(name: str, site: Site) -> Floats:
        if name == "d":
            sends(site, factor, after)
        with joined(site):
            return SUMMED[kind](own_of(name))

    found, _ = met({name: partial(at, name) for name in "abcd"})
    return found


@pytest.mark.parametrize("kind", SUMMED)
@pytest.mark.parametrize("after", [0, 2])
@pytest.mark.parametrize("factor", [np.nan, 0.0])
def test_a_site_that_sends_what_is_no_number_or_nothing_spoils_nothing(kind: str, factor: float, after: int) -> None:
    """Also in the midst of a mean or of a regression, whose first sums were over all sites."""
    found = beside(kind, factor, after)
    without = each({name: partial(SUMMED[kind], own_of(name)) for name in "abc"})["a"]
    whole = each({name: partial(SUMMED[kind], own_of(name)) for name in "abcd"})["a"]
    assert np.array_equal(found["a"], found["b"])
    away = np.abs(found["a"] - without)
    assert (away <= 1e-6 + 2 * np.abs(whole - without) + 0.02 * np.abs(without).max()).all()
    if after == 0:
        assert np.allclose(found["a"], without, atol=1e-5)


@pytest.mark.parametrize("kind", SUMMED)
def test_a_site_that_sends_ten_times_as_much_counts_as_more_sites_and_no_sum_breaks(kind: str) -> None:
    """In a masked sum as ten sites, since nobody sees it; in the mean of networks as two at most."""
    found = beside(kind, 10.0, 0)["a"]
    as_ten = {
        f"{name}{k}": partial(SUMMED[kind], own_of(name)) for name in "abcd" for k in range(1 + 9 * (name == "d"))
    }
    if kind == "network":
        own = [own_of(name).weights for name in "abcd"]
        assert np.allclose(found, bounded_mean(own, [1.0, 1.0, 1.0, 2.0])[0].ravel(), atol=1e-6)
    else:
        assert np.allclose(found, each(as_ten)["a0"], rtol=0.02, atol=0.02 * np.abs(found).max())


def test_of_a_site_with_ten_times_the_accounts_each_counts_less_so_that_it_is_twice_the_others() -> None:
    found = each({"a": partial(voice, 30), "b": partial(voice, 50), "c": partial(voice, 400), "d": partial(voice, 40)})
    assert found == {"a": 1.0, "b": 1.0, "c": pytest.approx(2 * 40 / 400), "d": 1.0}
    assert voice(400) == 1.0, "alone"


def test_labels_of_a_site_with_ten_times_the_accounts_do_not_turn_the_linear_part() -> None:
    """Its labels are the wrong way round."""
    many = replace(own_of("d"), points=np.tile(own_of("d").points, (10, 1)), label=np.tile(1 - own_of("d").label, 10))

    def fit(own: Own, held: bool) -> Floats:
        share = voice(len(own.label)) if held else 1.0
        return np.append(*of_all(own.points, own.label, np.full(len(own.label), share)))

    right = {}
    for held in (True, False):
        sites = {name: partial(fit, many if name == "d" else own_of(name), held) for name in "abcd"}
        weights = each(sites)["a"]
        right[held] = np.mean([((o.points @ weights[:-1] + weights[-1] > 0) == o.label) for o in map(own_of, "abc")])
    assert right[True] > 0.65 > 0.35 > right[False]


@settings(deadline=None, max_examples=6)
@given(st.lists(st.sets(st.integers(0, 60), max_size=40), min_size=3, max_size=4))
def test_rows_stand_in_the_order_in_which_each_site_has_its_own_values(of: list[set[int]]) -> None:
    """So that a step in the catalogue is as far at each site, though none knows the values of the others."""
    everything = sorted(set().union(*of))
    rows = np.random.default_rng(len(everything)).permutation(everything).tolist()
    found = each(
        {f"s{k}": partial(agreed.catalogue, [str(v) if v in own else None for v in rows]) for k, own in enumerate(of)}
    )
    for k, own in enumerate(of):
        assert found[f"s{k}"].tolist() == found["s0"].tolist()
        placed = [rows[at] for at in found["s0"].tolist() if rows[at] in own]
        assert placed == sorted(own)
