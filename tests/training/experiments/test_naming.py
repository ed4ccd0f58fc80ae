from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl

from service.encoding.vectors import as_text
from service.encoding.vocabulary import Vocabulary
from service.model.bundle import Bundle
from tests.support.named import ANONYMOUS, LEAST
from training.config import FitConfig
from training.data.dataset import Dataset
from training.data.kinds import VECTOR, Held
from training.data.log import Log
from training.data.split import set_aside
from training.experiments.naming import EXAMPLES, named, rare_values
from training.fit.encoder import fit_encoder


def counts(folder: Path, bundle: Bundle, least: int) -> tuple[dict[tuple[str, str], int], Dataset]:
    """How much each file names, and the data that the bundle was fitted on."""
    config = FitConfig(**bundle.manifest["config"])
    data = Dataset.read(folder / "events.csv", folder / "labels.csv", config)
    learned = set_aside(data.log, data.labels, data.training, config.seed).others
    rows = named(bundle, data.log, learned, least)
    assert all(len(row["examples"]) == min(row["count"], EXAMPLES) for row in rows)
    return {(row["file"], row["what"]): row["count"] for row in rows}, data


def test_a_bundle_names_values_of_two_accounts_and_the_accounts_of_its_test(attacked: Path, bundle: Bundle) -> None:
    least = 40
    found, data = counts(attacked, bundle, least)
    holders = Counter(v for _, v in data.log.events.select("sequence_id", "item_id").drop_nulls().unique().iter_rows())
    items = next(f for f in bundle.encoder.vocabularies if f.name == "item_id")
    assert isinstance(items, Vocabulary)
    rare = sum(holders[value] < least for value in items.values)
    assert found["encoder.json", "values of vocabularies"] >= rare > 0
    assert found["evaluation.json", "accounts"] >= len(data.split.test)
    for place in (
        ("encoder.json", "pairs of values"),
        ("statistics.npz", "values with a weight or a suspicion of their own"),
        ("ordinary.npz", "values with a share of their own"),
        ("manifest.json", "values that drift is watched by"),
        ("crowd.npz", "keys of identifiers"),
        ("golden.jsonl", "values of events"),
        ("report.html", "accounts"),
    ):
        assert found[place] > 0, place


def test_an_anonymous_bundle_names_none(anonymous: Path) -> None:
    bundle = Bundle.open(anonymous / "bundle")
    assert bundle.manifest["config"]["min_holders"] == ANONYMOUS.min_holders
    found, _ = counts(anonymous, bundle, LEAST)
    assert {place: count for place, count in found.items() if count} == {}
    assert np.sum(list(counts(anonymous, bundle, 100)[0].values())) > 0, "the same search, for what more must hold"


def test_vectors_that_few_hold_are_known_as_golden_samples_and_vocabularies_have_them() -> None:
    catalogue = np.random.default_rng(0).normal(size=(5, 8))
    of = [0, 1, 2, 3] * 20 + [4]  # one account alone has the last
    picture = pl.Series(catalogue[of].tolist(), dtype=pl.Array(pl.Float64, 8))
    ids = [f"s{k // 4}" for k in range(len(of))]
    log = Log.of(pl.DataFrame({"sequence_id": ids, "picture": picture}), held={"picture": Held(VECTOR, "")})
    encoder = fit_encoder(log, None, 128)
    rare = rare_values(log, encoder, 2)["picture"]
    [kind] = encoder.reading.spelt("picture", [catalogue[4]])
    assert rare == {as_text(catalogue[4]), kind}
