from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.encoding.held import Held, Keys
from service.model.crowd import Crowd
from service.model.looks import Look
from service.model.near import mixed
from service.model.togetherness import Untimed
from tests.support.crowds import USUAL
from training.data.popularity import usual_beside
from training.data.replay import WHOLE, arrivals, at_once, part_of, replay


def keys_of(*numbers: int) -> Keys:
    return mixed(np.array(numbers, dtype=np.uint64)) | np.uint64(1)


def held(rows: list[tuple[float, int]]) -> Held:
    """What names those numbers at those times."""
    keys = keys_of(*(number for _, number in rows))
    ts = np.array([at for at, _ in rows], dtype=np.float64)
    return Held(keys, np.zeros_like(keys), ts, np.arange(len(rows), dtype=np.int32), len(rows))


def untimed(history: Held) -> Held:
    return replace(history, ts=np.full(len(history.ts), np.nan))


def played(histories: list[Held], looks: list[Held], of: list[int]) -> dict[int, Look]:
    return dict(replay(histories, looks, np.array(of, dtype=np.int64)))


def assert_same(one: Look, other: Look) -> None:
    """But for who is alike: a sketch follows its account in strides, and so depends on the parts that it came in."""
    for name in ("keys", "sided", "event", "holders", "fresh", "known"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert np.allclose(one.totals, other.totals, atol=1e-6)


times = st.one_of(st.integers(0, 12).map(float), st.floats(0, 200 * 86400.0))
history = st.lists(st.tuples(times, st.integers(0, 8)), max_size=8).map(lambda rows: held(sorted(rows)))
logs = st.lists(history, min_size=1, max_size=5)


@settings(deadline=None)
@given(logs, st.data())
def test_it_is_as_if_each_history_were_entered_by_hand_up_to_the_look(log: list[Held], data: st.DataObject) -> None:
    of = data.draw(st.lists(st.integers(0, len(log) - 1), min_size=1, max_size=6))
    ends = [data.draw(st.integers(0, len(log[k].keys))) for k in of]
    looks = [part_of(log[k], 0, end) for k, end in zip(of, ends, strict=True)]
    found = played(log, looks, of)
    assert sorted(found) == list(range(len(looks)))
    latest = max((float(h.ts[-1]) for h in log if len(h.ts)), default=0.0)
    for at, look in enumerate(looks):
        now = float(look.ts[-1]) if len(look.ts) else latest
        crowd = Crowd(WHOLE)
        for account, whole in enumerate(log):
            crowd.enter(account, part_of(whole, 0, int((whole.ts <= now).sum())))
        assert_same(found[at], crowd.look(of[at], look, now))


@settings(deadline=None)
@given(logs, st.floats(0, 100 * 86400.0))
def test_what_comes_later_changes_no_earlier_look(log: list[Held], until: float) -> None:
    cut = [part_of(h, 0, int((h.ts <= until).sum())) for h in log]
    if not any(len(h.ts) for h in cut):
        return
    of = [k for k, h in enumerate(cut) if len(h.ts)]
    looks = [cut[k] for k in of]
    whole, past = played(log, looks, of), played(cut, looks, of)
    for at in range(len(looks)):
        assert_same(whole[at], past[at])
        assert (whole[at].copy.share, whole[at].lockstep.share) == (past[at].copy.share, past[at].lockstep.share)


def test_what_has_no_times_is_there_from_the_start_and_looks_at_the_end() -> None:
    log = [held([(100.0, 1), (500.0, 2)]), untimed(held([(0.0, 1), (0.0, 3)])), held([(900.0, 3)])]
    found = played(log, [part_of(log[0], 0, 1), log[1]], [0, 1])
    assert found[0].known == 1
    assert found[0].holders[0, 0].tolist() == [1.0] * 4
    assert found[1].known == 2
    by_hand = Crowd(WHOLE)
    for account, whole in enumerate((log[0], at_once(log[1], 100.0), log[2])):
        by_hand.enter(account, whole)
    assert_same(found[1], by_hand.look(1, at_once(log[1], 900.0), 900.0))


def test_a_log_without_times_meets_all_of_itself() -> None:
    log = [untimed(held([(0.0, 1), (0.0, k)])) for k in (2, 3, 4)]
    for look in played(log, log, [0, 1, 2]).values():
        assert look.known == 2
        assert look.holders[0].max() == 2
    assert isinstance(usual_beside(log, USUAL), Untimed)
    assert usual_beside([*log, held([(5.0, 9)])], USUAL) is USUAL


@pytest.mark.parametrize("log", [[], [held([])]])
def test_nothing_comes_of_nothing(log: list[Held]) -> None:
    assert [look.known for look in played(log, log, list(range(len(log)))).values()] == [0] * len(log)


def test_nobody_sees_his_own_history() -> None:
    log = [held([(1.0, 1), (2.0, 2), (3.0, 3)])]
    [look] = played(log, log, [0]).values()
    assert look.holders.sum() == look.totals.sum() == look.known == 0
    assert look.copy.account is None


def test_what_arrives_comes_once_however_it_is_cut_into_pieces() -> None:
    ts, of = np.array([1.0, 1.0, 2.0, 3.0, 3.0, 5.0]), np.array([4, 2, 2, 4, 4, 1])
    moments = np.array([0.0, 1.0, 1.0, 3.5, 9.0])
    expected = [{}, {2: 1, 4: 1}, {}, {2: 1, 4: 2}, {1: 1}]
    for cuts in ([], [2], [1, 4], [2, 2, 6]):
        pieces = zip(np.split(ts, cuts), np.split(of, cuts), strict=True)
        found = list(arrivals(pieces, moments))
        assert found == expected
        assert [list(due) for due in found] == [sorted(due) for due in found]
