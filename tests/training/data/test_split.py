from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data.labels import Labels
from training.data.log import Log, LogError
from training.data.split import check_enough, folds, grouped_by, held_out, part_at_random, set_aside, split


def world(count: int, seed: int, timed: bool, grouped: bool) -> tuple[Log, Labels]:
    rng = np.random.default_rng(seed)
    ids = [f"s{i}" for i in range(count)]
    ts = rng.uniform(0, 1e6, count) if timed else [None] * count
    log = Log.of(pl.DataFrame({"sequence_id": ids, "ts": pl.Series(ts, dtype=pl.Float64), "action": ["x"] * count}))
    label = (rng.random(count) < 0.3).astype(np.int8)
    kind = [str(rng.choice(["a", "b"])) if y else None for y in label]
    group = [f"g{rng.integers(0, count // 3)}" if y and grouped else None for y in label]
    known = rng.random(count) < 0.95
    return log, Labels(known, label, kind, group, pl.DataFrame({"x": ids}))


@settings(deadline=None, max_examples=40)
@given(st.integers(120, 300), st.integers(0, 99), st.booleans(), st.booleans())
def test_parts_share_no_sequence_and_no_group_and_hold_every_label(
    count: int, seed: int, timed: bool, grouped: bool
) -> None:
    log, labels = world(count, seed, timed, grouped)
    parts = split(log, labels, 0.2, seed)
    together = np.concatenate((parts.train, parts.test))
    assert sorted(together.tolist()) == np.flatnonzero(labels.known).tolist()
    of_part = [{labels.split_group[i] for i in part} - {None} for part in (parts.train, parts.test)]
    assert sum(map(len, of_part)) == len(set().union(*of_part))
    for part in (parts.train, parts.test):
        assert set(labels.label[part].tolist()) == {0, 1}
        assert 0.05 * count < len(part) < 0.9 * count
    assert timed or parts.how == "random"


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 99))
def test_by_time_the_test_part_is_the_latest(seed: int) -> None:
    log, labels = world(400, seed, timed=True, grouped=False)
    parts = split(log, labels, 0.2, seed)
    assert parts.how == "time"
    assert log.ends[parts.train].max() <= log.ends[parts.test].min()


def test_where_time_would_leave_a_part_without_a_class_the_split_is_random() -> None:
    log, labels = world(200, 0, timed=True, grouped=False)
    early = (log.ends < np.quantile(log.ends, 0.3)).astype(np.int8)
    assert split(log, Labels(labels.known, early, [None] * 200, [None] * 200, labels.groups), 0.2, 0).how == "random"


def test_too_few_labels_say_so(caplog: pytest.LogCaptureFixture) -> None:
    log, labels = world(200, 0, timed=False, grouped=False)
    known = np.flatnonzero(labels.known)
    for count in (2, 11):
        label = np.zeros(200, dtype=np.int8)
        label[known[:count]] = 1
        few = Labels(labels.known, label, [None] * 200, [None] * 200, labels.groups)
        found = split(log, few, 0.2, 0)
        assert (found.how, len(found.test)) == ("none", 0)
        assert found.train.tolist() == known.tolist()
        assert f"one class has only {count} labelled" in caplog.text
        if count == 2:
            with pytest.raises(LogError, match=r"only 2 sequences .* to learn from, beside .* 0 in all"):
                check_enough(few)
        else:
            check_enough(few)


def test_sites_may_need_more_than_a_fit_that_is_alone() -> None:
    _, labels = world(20, 1, timed=False, grouped=False)
    check_enough(labels)
    with pytest.raises(LogError, match="at least 12 are needed"):
        check_enough(labels, least=12)


def test_a_random_part_keeps_the_mixture_of_types() -> None:
    _, labels = world(1000, 1, timed=False, grouped=False)
    everybody = np.flatnonzero(labels.known)
    rest, drawn = part_at_random(labels, everybody, 0.2, 3)
    assert sorted([*rest, *drawn]) == everybody.tolist()
    for kind in ("a", "b", None):
        share = np.mean([labels.types[i] == kind for i in drawn])
        assert abs(share - np.mean([labels.types[i] == kind for i in everybody])) < 0.02
    assert part_at_random(labels, everybody, 0.2, 3)[1].tolist() == drawn.tolist()
    assert part_at_random(labels, everybody, 0.2, 4)[1].tolist() != drawn.tolist()


def test_folds_cover_everybody_once_and_keep_groups_whole() -> None:
    _, labels = world(300, 2, timed=False, grouped=True)
    seen: list[int] = []
    for rest, fold in folds(labels, 5, 0):
        seen += fold.tolist()
        assert not {labels.split_group[i] for i in rest} & {labels.split_group[i] for i in fold} - {None}
    assert sorted(seen) == np.flatnonzero(labels.known).tolist()


@pytest.mark.parametrize("count", [1, 3])
def test_what_is_held_out_is_nowhere_else_and_by_folds_it_is_everybody(count: int) -> None:
    _, labels = world(300, 3, timed=False, grouped=True)
    labels = labels.subset(np.flatnonzero(labels.known))
    parts = held_out(labels, count, 0.2, 0)
    assert len(parts) == count
    for others, held in parts:
        assert not set(others.tolist()) & set(held.tolist())
        assert not {labels.split_group[i] for i in others} & {labels.split_group[i] for i in held} - {None}
    held_once = np.concatenate([held for _, held in parts])
    assert len(set(held_once.tolist())) == len(held_once)
    assert len(held_once) == (len(labels.label) if count > 1 else pytest.approx(0.2 * len(labels.label), rel=0.2))


def test_sequences_that_say_the_same_stay_in_one_fold() -> None:
    texts = ["Win CASH  now", "win cash now", "hello there", "see you"] * 10
    log = Log.of(pl.DataFrame({"sequence_id": [str(i) for i in range(40)], "ts": [None] * 40, "text": texts}))
    labels = replace(Labels.none(40), known=np.ones(40, dtype=bool), label=np.array([1, 1, 0, 0] * 10, dtype=np.int8))
    grouped = grouped_by(log, labels, "text")
    assert len(set(grouped.split_group)) == 3
    with pytest.raises(LogError, match="--group-by words"):
        grouped_by(log, labels, "words")


@settings(max_examples=40)
@given(st.integers(60, 300), st.integers(0, 99), st.booleans(), st.booleans())
def test_what_is_set_aside_is_genuine_and_of_groups_of_its_own(
    count: int, seed: int, timed: bool, grouped: bool
) -> None:
    log, labels = world(count, seed, timed, grouped)
    at = np.arange(count)[: count - 10]
    found = set_aside(log, labels, at, seed)
    others, aside = found.others, found.aside
    if found.whose != "genuine accounts":  # few are known as anomalous, and some have no label
        assert not (labels.known & (labels.label == 1))[aside].any()
        return
    assert sorted([*others.tolist(), *aside.tolist()]) == at.tolist()
    assert labels.known[aside].all()
    assert not labels.label[aside].any()
    assert not {labels.split_group[i] for i in aside} & {labels.split_group[i] for i in others} - {None}
    genuine = int((labels.known & (labels.label == 0))[at].sum())
    assert genuine / 6 < len(aside) < genuine / 2.5
    if timed:
        rest = others[labels.known[others] & (labels.label[others] == 0)]
        assert log.ends[aside].min() >= log.ends[rest].max()


def test_without_labels_some_of_all_are_set_aside() -> None:
    log, _ = world(100, 0, timed=False, grouped=False)
    found = set_aside(log, Labels.none(100), np.arange(100), 0)
    assert (len(found.others), len(found.aside), found.whose) == (67, 33, "all accounts")


def test_what_is_set_aside_is_late_but_no_busier_than_the_others() -> None:
    """Busy accounts go on for longer, so that the latest of all would be the busiest."""
    rng = np.random.default_rng(0)
    lengths = rng.geometric(0.05, 1000)
    first, pace = rng.uniform(0, 1e7, 1000), rng.exponential(1e5, 1000)
    of = np.repeat(np.arange(1000), lengths)
    at = np.arange(len(of)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    log = Log.of(pl.DataFrame({"sequence_id": of.astype(str), "ts": first[of] + at * pace[of], "action": "x"}))
    labels = Labels(np.ones(1000, dtype=bool), np.zeros(1000, dtype=np.int8), [None] * 1000, [None] * 1000, log.events)
    found = set_aside(log, labels, np.arange(1000), 0)
    assert len(found.aside) == 200
    assert abs(lengths[found.aside].mean() - lengths.mean()) < 3  # the latest of all have 8 more
    assert np.median(log.ends[found.aside]) > np.quantile(log.ends, 0.7)


@pytest.mark.parametrize("timed", [True, False])
def test_where_every_group_holds_an_anomaly_nothing_can_be_set_aside(timed: bool) -> None:
    log, labels = world(300, 0, timed, grouped=False)
    coarse = replace(labels, split_group=[f"g{i % 10}" for i in range(300)])
    found = set_aside(log, coarse, np.arange(300), 0)
    assert len(found.aside) == 0
    assert found.others.tolist() == list(range(300))


@pytest.mark.parametrize("timed", [True, False])
def test_one_large_group_is_not_set_aside_as_a_whole(timed: bool) -> None:
    log, labels = world(300, 0, timed, grouped=False)
    groups = ["all" if y == 0 and i > 15 else None for i, y in enumerate(labels.label)]
    found = set_aside(log, replace(labels, split_group=groups), np.arange(300), 0)
    genuine = labels.known & (labels.label == 0)
    assert genuine[found.others].sum() > 2 / 3 * genuine.sum() - 1


@given(st.integers(12, 40), st.integers(0, 99))
def test_of_many_rare_types_some_are_drawn(count: int, seed: int) -> None:
    label = (np.arange(10 * count) % 10 == 0).astype(np.int8)
    kinds = [f"kind {i}" if y else None for i, y in enumerate(label)]
    everybody = np.arange(len(label))
    labels = Labels(label >= 0, label, kinds, [None] * len(label), pl.DataFrame({"x": everybody}))
    _, drawn = part_at_random(labels, everybody, 0.15, seed)
    assert abs(labels.label[drawn].sum() - 0.15 * count) <= 0.5
    [(others, held)] = held_out(labels, 1, 0.15, seed)
    assert {*labels.label[held]} == {*labels.label[others]} == {0, 1}
