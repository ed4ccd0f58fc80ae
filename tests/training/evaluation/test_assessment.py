"""Times are dealt anew within a log for the importance of times, also where only some sequences have any."""

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data.log import Log
from training.evaluation.assessment import _dealt_times

times = st.lists(st.none() | st.integers(0, 10**9).map(float), min_size=1, max_size=6)


@settings(deadline=None)
@given(st.lists(times, min_size=1, max_size=6))
def test_sequences_keep_their_start_and_the_log_its_gaps_and_what_has_no_time_has_none(
    given_times: list[list[float | None]],
) -> None:
    rows = [(f"s{9 - i}", ts) for i, of_sequence in enumerate(given_times) for ts in of_sequence]
    log = Log.of(pl.DataFrame(rows, {"sequence_id": pl.String, "ts": pl.Float64}, orient="row"))
    dealt = Log.of(_dealt_times(log, np.random.default_rng(0)))
    assert dealt.ids == log.ids
    before, after = [], []
    for i, of_sequence in enumerate(given_times):
        known = sorted(ts for ts in of_sequence if ts is not None)
        found = [ts for ts in dealt.sequence(i)[0]["ts"] if ts is not None]
        assert len(found) == len(known)
        assert found[:1] == known[:1]
        assert found == sorted(found)
        assert not np.isnan(found).any()
        before += np.diff(known).tolist()
        after += np.diff(found).tolist()
    assert sorted(before) == sorted(after)
