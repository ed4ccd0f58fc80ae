from pathlib import Path

import numpy as np
import polars as pl
import pytest

from service.encoding.change import COUNTS, Change
from service.encoding.encoder import Encoded, Encoder
from service.encoding.fields import Bins, Deviation, Popularity
from service.encoding.habit import Habit
from service.encoding.pairs import Cross
from service.encoding.vocabulary import Vocabulary
from tests.support.logs import genuine_log
from training.config import FitConfig
from training.data.clean import clean_events
from training.data.log import Log, LogError
from training.fit.encoder import clipped, fit_encoder


def log_of(tmp_path: Path, table: pl.DataFrame) -> Log:
    table.write_csv(tmp_path / "e.csv")
    return clean_events(tmp_path / "e.csv")[0]


def test_columns_are_told_apart_and_labels_and_constants_are_no_features(tmp_path: Path) -> None:
    count = 3000
    rng = np.random.default_rng(0)
    table = pl.DataFrame(
        {
            "sequence_id": [f"s{i // 10}" for i in range(count)],
            "user_id": [f"s{i // 10}" for i in range(count)],
            "event_label": [0] * count,
            "label": [0] * count,
            "ts": np.arange(count),
            "action": rng.choice(["click", "buy"], count),
            "item_id": rng.integers(0, 50, count),
            "price": rng.lognormal(3, 1, count),
            "country": rng.choice(["de", "fr"], count),
            "device": [f"{rng.integers(0, 10**9):x}" for _ in range(count)],
            "same": ["x"] * count,
            "note": [" ".join(rng.choice(["red", "blue", "big", "shoe", "fast"], 9)) for _ in range(count)],
        }
    )
    kinds = log_of(tmp_path, table).kinds
    assert kinds == {
        "action": "categorical",
        "item_id": "identifier",
        "price": "numeric",
        "country": "categorical",
        "device": "identifier",
        "note": "text",
    }


def test_the_encoder_learns_from_what_it_is_given_and_nothing_else(tmp_path: Path) -> None:
    log = log_of(tmp_path, genuine_log(60))
    half = log.subset(np.arange(30))
    encoder = fit_encoder(half, None, 128)
    fields = {f.name: f for f in encoder.fields}
    items = fields["item_id"]
    assert isinstance(items, Vocabulary)
    holders = dict(half.events.group_by("item_id").agg(pl.col("sequence_id").n_unique()).iter_rows())
    assert set(items.values) == {item for item, count in holders.items() if count > 1}
    popularity = fields["item_id popularity"]
    assert isinstance(popularity, Popularity)
    assert popularity.levels == [int(np.log2(holders[v])) for v in items.values]
    assert items.values == sorted(items.values, key=lambda v: int(v[1:]))


def test_bins_hold_equal_shares_and_outliers_are_counted(tmp_path: Path) -> None:
    log = log_of(tmp_path, genuine_log(120))
    encoder = fit_encoder(log, None, 128)
    price = next(f for f in encoder.fields if isinstance(f, Bins) and f.name == "price")
    rows = np.searchsorted(price.edges, log.events["price"].to_numpy(), side="right")
    shares = np.bincount(rows) / len(rows)
    assert len(shares) == len(price.edges) + 1
    assert 0.5 / len(shares) < shares.min() <= shares.max() < 2 / len(shares)
    counted = clipped(log, encoder)
    assert counted.keys() == {"price"}
    assert 0 < counted["price"] <= 0.003 * log.events.height
    rating = next(f for f in encoder.fields if isinstance(f, Bins) and f.name == "rating")
    assert [rating.label(2 + k) for k in range(5)] == ["1", "2", "3", "4", "5"]


def test_pairs_and_deviations_are_those_of_the_log(tmp_path: Path) -> None:
    rows = [("a", "x", 5.0), ("b", "x", 5.0), ("c", "x", 1.0), ("a", "y", 2.0), ("b", "y", 3.0), ("c", "z", 1.0)]
    table = pl.DataFrame(rows, schema=["sequence_id", "item_id", "rating"], orient="row")
    log = log_of(tmp_path, table)
    encoder = fit_encoder(log, None, 128)
    cross = next(f for f in encoder.fields if isinstance(f, Cross))
    items, ratings = encoder.fields[1], encoder.fields[0]
    assert items.name == "item_id"
    assert [(items.label(a), ratings.label(b)) for a, b in cross.pairs] == [("x", "5")]
    deviation = next(f for f in encoder.fields if isinstance(f, Deviation))
    overall = table["rating"].mean()
    assert deviation.means == [(11 + 4 * overall) / 7, (5 + 4 * overall) / 6]


def test_a_log_in_which_nothing_differs_says_that_there_is_nothing_to_learn(tmp_path: Path) -> None:
    log = log_of(tmp_path, pl.DataFrame({"sequence_id": ["a", "a", "b"], "action": ["click"] * 3}))
    with pytest.raises(LogError, match=r"nothing to learn from: .*\(action\)"):
        fit_encoder(log, None, 128)


def test_what_is_learned_of_a_value_is_learned_under_all_its_spellings(tmp_path: Path) -> None:
    table = genuine_log(40).with_columns(item_id=pl.col("item_id").str.slice(1))
    plain = log_of(tmp_path, table)
    odd = pl.when(pl.int_range(pl.len()) % 2 == 0).then(pl.col("item_id") + ".0").otherwise(" " + pl.col("item_id"))
    mixed = log_of(tmp_path, table.with_columns(item_id=odd))
    first, second = (fit_encoder(log, None, 128) for log in (plain, mixed))
    assert [f.name for f in second.fields] == [f.name for f in first.fields]
    assert [v.values for v in second.vocabularies] == [v.values for v in first.vocabularies]
    for one, other in zip(first.encode_all(plain.sequences()), second.encode_all(mixed.sequences()), strict=True):
        assert isinstance(one, Encoded)
        assert isinstance(other, Encoded)
        assert (one.rows == other.rows).all()


def test_how_the_log_spells_values_is_kept_with_the_encoder(tmp_path: Path) -> None:
    rows = [f'u{k % 9},{k},a{k % 2},"{k % 40},5",{"?" if k % 5 else "x"}' for k in range(300)]
    (tmp_path / "e.csv").write_text("\n".join(["sequence_id,ts,action,price,note", *rows, ""]))
    log, _ = clean_events(tmp_path / "e.csv", reading=FitConfig(missing="?, none").reading)
    encoder = Encoder.from_json(fit_encoder(log, None, 128).to_json(), None)
    assert (encoder.reading.commas, encoder.reading.missing) == ({"price"}, {"", "?", "none"})
    assert encoder.read == ("action", "note", "price", "ts")


def actions_of(shares: np.ndarray, users: np.ndarray, length: int = 200) -> pl.DataFrame:
    """A log of actions alone, in which each sequence draws them from the shares of its user."""
    rng = np.random.default_rng(0)
    drawn = [rng.choice(shares.shape[1], length, p=shares[user]) for user in users.tolist()]
    rows = [(f"s{i}", f"do {action}") for i, actions in enumerate(drawn) for action in actions.tolist()]
    return pl.DataFrame(rows, schema=["sequence_id", "action"], orient="row")


def test_habits_are_learned_where_the_past_of_an_account_tells_more_than_the_log(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    users = np.arange(60) % 20
    own, everybody = rng.dirichlet(np.full(40, 0.3), 20), np.tile(rng.dirichlet(np.full(40, 0.3)), (20, 1))

    def habits(log: pl.DataFrame) -> list[Habit]:
        return [f for f in fit_encoder(log_of(tmp_path, log), None, 128).fields if isinstance(f, Habit)]

    [habit] = habits(actions_of(own, users))
    assert habit.sources == ["action"]
    assert habits(actions_of(everybody, users)) == []  # all alike
    assert habits(actions_of(own, users, length=60)) == []  # no past
    assert habits(actions_of(own, users[:10])) == []  # too few to learn it from


def test_who_goes_on_unlike_an_account_is_told_from_its_owner(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    users = np.arange(80) % 20
    log = actions_of(rng.dirichlet(np.full(40, 0.3), 20), users, length=300)
    encoder = fit_encoder(log_of(tmp_path, log), None, 128)
    histories = [log.filter(sequence_id=f"s{i}")["action"].to_list() for i in range(40)]
    own = np.stack([encoder.encode({"action": h}, 300).habit for h in histories])
    taken = np.stack(
        [encoder.encode({"action": histories[i][:236] + histories[i + 1][236:]}, 300).habit for i in range(39)]
    )
    assert own[:, 1].min() > taken[:, 1].max()  # of the latest 64


def test_of_restless_fields_less_counts_and_a_field_is_judged_by_those_who_have_it(tmp_path: Path) -> None:
    rng, owner = np.random.default_rng(1), np.arange(4800) // 40

    def drawn(again: float) -> list[str]:
        """Values of which each is that before it so often, and else any."""
        found = list(rng.choice(list("abcd"), len(owner)))
        for k in np.flatnonzero(rng.random(len(owner)) < again).tolist():
            found[k] = found[k - 1]
        return found

    restless = {f"again {again}": drawn(again) for again in (0.0, 0.1, 0.15, 0.2, 0.25, 0.3, 0.8)}
    table = pl.DataFrame({"sequence_id": owner.astype(str), **restless})
    table = table.with_columns(some=pl.when(pl.Series(owner % 3 == 0)).then("again 0.0"))
    [change] = [f for f in fit_encoder(log_of(tmp_path, table), None, 128).fields if isinstance(f, Change)]
    found = dict(zip(change.sources, change.counts, strict=True))
    counts = [found.get(name, 0.0) for name in restless]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == found["some"] == COUNTS[0]
    assert counts[-1] == 0.0
    assert 0.0 < counts[4] < COUNTS[0]


@pytest.mark.parametrize("name", ["time gap", "hour of day", "item_id repeat"])
def test_a_column_that_is_called_like_a_field_of_ours_is_refused_with_another_name(tmp_path: Path, name: str) -> None:
    table = genuine_log(60)
    named = table.with_columns(pl.Series(name, np.random.default_rng(0).random(table.height)))
    with pytest.raises(LogError, match=f"column '{name}' .* --columns 'its {name}={name}'"):
        fit_encoder(log_of(tmp_path, named), None, 128)
    assert fit_encoder(log_of(tmp_path, named.rename({name: f"its {name}"})), None, 128).columns >= {f"its {name}"}
