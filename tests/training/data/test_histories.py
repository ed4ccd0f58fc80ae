from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.encoding.held import Held
from service.model.near import mixed
from training.data.histories import CLAIMS, SEQUENCES, Histories, is_kept, keep
from training.data.replay import replay

NAMED = ("keys", "sided", "ts", "event")


def held(rows: list[tuple[float, int]], timed: bool) -> Held:
    """What names those numbers at those times, each third one by its side, too."""
    numbers = np.array([number for _, number in rows], dtype=np.uint64)
    keys = mixed(numbers) | np.uint64(1)
    ts = np.array([at if timed else np.nan for at, _ in rows])
    event = np.arange(len(rows), dtype=np.int32)[::-1].copy()
    return Held(keys, np.where(numbers % 3 == 0, keys ^ np.uint64(2), np.uint64(0)), ts, event, len(rows))


times = st.one_of(st.integers(0, 12).map(float), st.floats(0, 200 * 86400.0))
rows = st.lists(st.tuples(times, st.integers(0, 8)), max_size=8).map(sorted)
logs = st.lists(st.builds(held, rows, st.booleans()), max_size=6)


def on_disk(folder: Path, log: list[Held], parts: list[int]) -> Histories:
    """A log whose sequences are dealt out to parts, each with its own number in the log."""
    folders = []
    for part in sorted(set(parts)):
        mine = [i for i, of in enumerate(parts) if of == part]
        folders.append(folder / str(part))
        folders[-1].mkdir()
        keep(folders[-1], [10 * i for i in mine], [log[i] for i in mine])
        assert is_kept(folders[-1])
    return Histories(folders)


@settings(max_examples=50)
@given(logs, st.data())
def test_a_log_in_parts_on_disk_is_played_as_in_memory(log: list[Held], data: st.DataObject) -> None:
    parts = data.draw(st.lists(st.integers(0, 2), min_size=len(log), max_size=len(log)))
    hindsight, of = data.draw(st.booleans()), np.arange(len(log))
    expected = list(replay(log, log, of, hindsight=hindsight))
    with TemporaryDirectory() as folder:
        kept = on_disk(Path(folder), log, parts)
        assert len(kept) == len(log)
        for one, other in zip(kept, log, strict=True):
            assert one.length == other.length
            for name in NAMED:
                assert np.array_equal(getattr(one, name), getattr(other, name), equal_nan=name == "ts")
                assert getattr(one, name).dtype == getattr(other, name).dtype
        claims = kept.in_time(data.draw(st.integers(1, 10)))
        found = list(replay(kept, kept, of, hindsight=hindsight, claims=claims))
    assert [at for at, _ in found] == [at for at, _ in expected]
    for (_, one), (_, other) in zip(found, expected, strict=True):
        for name in ("keys", "sided", "event", "holders", "totals"):
            assert np.array_equal(getattr(one, name), getattr(other, name)), name
        assert (one.fresh, one.known, one.age) == (other.fresh, other.known, other.age)
        assert (one.copy.account, one.copy.share) == (other.copy.account, other.copy.share)
        assert (one.lockstep.account, one.lockstep.share) == (other.lockstep.account, other.lockstep.share)


def test_few_claims_are_in_memory_at_once_unless_they_have_the_same_time(tmp_path: Path) -> None:
    log = [held([(float(1000 * k + i), i) for i in range(500)], timed=True) for k in range(8)]
    log.append(held([(250.0, i) for i in range(300)], timed=True))
    kept = on_disk(tmp_path, log, [k % 4 for k in range(len(log))])
    pieces = list(kept.in_time(rows=40))
    assert np.concatenate([ts for ts, _ in pieces]).tolist() == sorted(t for one in log for t in one.ts.tolist())
    assert sorted(len(ts) for ts, _ in pieces)[-2] <= 40
    assert max(len(ts) for ts, _ in pieces) <= 300 + 40
    told = {k: sum((of == k).sum() for _, of in pieces) for k in range(len(log))}
    assert told == {k: len(one.keys) for k, one in enumerate(log)}


def test_a_part_is_there_once_all_of_it_is(tmp_path: Path) -> None:
    (tmp_path / CLAIMS).mkdir()  # where no file can be written
    with pytest.raises(OSError, match=CLAIMS):
        keep(tmp_path, [1], [held([(1.0, 1)], timed=True)])
    assert not is_kept(tmp_path)
    assert not (tmp_path / SEQUENCES).exists()
