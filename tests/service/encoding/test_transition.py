from collections import Counter

import numpy as np
import polars as pl

from service.encoding.encoder import Encoder
from service.encoding.fields import MISSING
from service.encoding.pairs import Cross
from service.encoding.transition import SURPRISE_EDGES, Transition
from training.data.log import Log
from training.fit.encoder import fit_encoder


def log_of(sequences: list[list[str]]) -> Log:
    rows = [(f"s{i}", action) for i, actions in enumerate(sequences) for action in actions]
    return Log.of(pl.DataFrame(rows, schema=["sequence_id", "action"], orient="row"))


def surprise(encoder: Encoder, actions: list[str]) -> list[int]:
    """The bin of each event, from 0; -1 where it is missing."""
    [slot] = [s for s in encoder.of("event") if isinstance(s.field, Transition)]
    rows = encoder.encode({"action": actions}, len(actions)).rows[1:, slot.slot] - slot.start
    return [int(row) - 2 if row > MISSING else -1 for row in rows]


def learned() -> Encoder:
    """Of sessions in which a is followed by b or c by chance, and b and c by what was before the a."""
    rng = np.random.default_rng(0)
    sessions = []
    for _ in range(200):
        session: list[str] = []
        while len(session) < 30:
            key = str(rng.choice(["x", "y"]))
            session += [key, "a", "b" if key == "x" else "c", "end"]
        sessions.append(session)
    return fit_encoder(log_of(sessions), None, 128)


def test_what_never_follows_surprises_and_what_always_follows_does_not() -> None:
    encoder = learned()
    usual = surprise(encoder, ["x", "a", "b", "end", "y", "a", "c", "end"])
    assert usual[0] == -1
    assert max(usual[1:]) <= np.searchsorted(SURPRISE_EDGES, np.log(2.5))
    crossed = surprise(encoder, ["x", "a", "c", "end", "y", "a", "b", "end"])  # two values before tell
    assert min(crossed[2], crossed[6]) > max(usual[1:]) + 2
    assert surprise(encoder, ["x", "a", "end", "b"])[2] > max(usual[1:]) + 2  # so does one


def test_values_that_training_did_not_hold_surprise_most_and_missing_ones_not_at_all() -> None:
    found = surprise(learned(), ["x", "a", "never", "end", "x", "", "a"])
    assert found[2] >= max(found)
    assert found[5] == -1


def test_probabilities_after_a_context_sum_to_one_at_most() -> None:
    encoder = learned()
    [field] = [f for f in encoder.fields if isinstance(f, Transition)]
    pairs = next(f for f in encoder.fields if f.name == field.pair)
    total: Counter[int] = Counter()
    assert isinstance(pairs, Cross)
    for (_, before), p in zip(pairs.pairs, field.probability[1][2:], strict=True):
        total[before] += np.exp(p)
    assert all(0.5 < p < 1 + 1e-9 for p in total.values())


def test_one_session_does_not_make_its_own_order_usual() -> None:
    rng = np.random.default_rng(0)
    sessions = [list(rng.choice(list("abcdef"), 40)) for _ in range(50)]
    sessions.append(["g", "h"] * 20)
    sessions.append(["g", *"abc", "h"])
    encoder = fit_encoder(log_of(sessions), None, 128)
    assert min(surprise(encoder, ["g", "h"] * 20)[1:]) >= np.searchsorted(SURPRISE_EDGES, 1.5)
