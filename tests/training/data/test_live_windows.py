"""Windows of a log at moments drawn at random."""

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from training.data.labels import Labels
from training.data.live_windows import DRAWS, at_moments
from training.data.log import Log

events = st.lists(st.tuples(st.integers(0, 50), st.sampled_from([0, 1, None])), min_size=1, max_size=12)


@given(st.lists(st.tuples(events, st.booleans()), min_size=1, max_size=6), st.integers(1, 5), st.integers(0, 9))
def test_a_window_holds_the_latest_events_at_some_moment(
    sequences: list[tuple[list[tuple[int, int | None]], bool]], window: int, seed: int
) -> None:
    rows = [
        {"sequence_id": f"s{i}", "ts": float(ts), "place": place, "event_label": label}
        for i, (events, _) in enumerate(sequences)
        for place, (ts, label) in enumerate(events)
    ]
    log = Log.of(pl.DataFrame(rows, infer_schema_length=None))
    anomalous = np.array([bad for _, bad in sequences])
    table = pl.DataFrame({"sequence_id": log.ids, "label": anomalous.astype(int), "type": ["farm"] * len(log)})
    found, labels = at_moments(log, Labels.of(log.ids, table), window, seed)
    assert len(found) == len(labels.label) == DRAWS * len(log)
    assert len(set(found.ids)) == len(found)
    for k, (columns, length) in enumerate(found.sequences()):
        whole, bad = sequences[k // DRAWS]
        in_order = sorted(range(len(whole)), key=lambda place: (whole[place][0], place))
        places = [int(str(place)) for place in columns["place"]]
        end = in_order.index(places[-1]) + 1
        assert places == in_order[end - length : end]
        assert 1 <= length <= window
        assert k % DRAWS or length == min(end, window)
        said = [whole[place][1] for place in places]
        wanted = bad and (1 in said or None in said)
        assert labels.label[k] == wanted
        assert labels.types[k] == ("farm" if wanted else None)
        assert labels.split_group[k] == labels.split_group[k - k % DRAWS]
    assert len(set(labels.split_group)) == len(log)
