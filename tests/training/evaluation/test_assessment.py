"""Rates by group; and times are dealt anew for their importance, also where only some sequences have any."""

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data.labels import Labels
from training.data.log import Log
from training.evaluation.assessment import _dealt_times, group_rates

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


def test_rates_are_told_by_group_of_the_labels_by_constant_columns_and_by_number_of_events() -> None:
    lengths = [2, 3, 30, 30]
    ids = np.repeat(["a", "b", "c", "bad"], lengths)
    log = Log.of(
        pl.DataFrame(
            {
                "sequence_id": ids,
                "item_id": [f"i{k}" for k in range(len(ids))],
                "country": np.repeat(["NZ", "CH", "NZ", "NZ"], lengths),
                "action": "view",
                "picture": pl.Series(
                    np.repeat([[0.0], [1.0], [0.0], [0.0]], lengths, 0), dtype=pl.Array(pl.Float64, 1)
                ),
            }
        )
    )
    plans = pl.DataFrame({"plan": ["free", "paid", None, "free"]})
    label = np.array([0, 0, 0, 1], dtype=np.int8)
    labels = Labels(np.ones(4, dtype=bool), label, [None] * 4, [None] * 4, plans)
    rows = group_rates(log, labels, np.array([True, False, False, True]))
    found = {(r["column"], r["value"]): (r["false_positive_rate"], r["recall"]) for r in rows}
    assert list(found) == [
        ("plan", "free"),
        ("plan", "paid"),
        ("plan", "unknown"),
        ("country", "CH"),
        ("country", "NZ"),
        ("number of events", "1 to 5"),
        ("number of events", "21 to 64"),
    ]
    assert found["country", "NZ"][0][0] == 0.5
    assert found["country", "CH"][1] is None
    assert found["number of events", "1 to 5"][0][3] == 2
    assert found["number of events", "21 to 64"][1][0] == 1.0
