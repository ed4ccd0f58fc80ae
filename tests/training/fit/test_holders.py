import io
import struct
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from service.encoding.encoder import PAD
from service.encoding.fields import Bins
from service.encoding.usage import Usage
from service.model.bundle import Bundle
from tests.support.named import ANONYMOUS, LEAST, named_log
from training.data.log import Log
from training.fit.bundle import fit_bundle
from training.fit.encoder import fit_encoder
from training.fit.holders import blanked, rare_rows
from training.fit.sequences import encoded_log


def contents(folder: Path) -> dict[str, bytes]:
    """All that a bundle's files hold: arrays unpacked, headers of weights apart, graphs as they are."""
    found = {}
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        if path.suffix == ".npz":
            with np.load(io.BytesIO(content)) as arrays:
                content = b"".join(name.encode() + arrays[name].tobytes() for name in arrays.files)
        elif path.suffix == ".safetensors":
            content = content[8 : 8 + struct.unpack("<Q", content[:8])[0]]
        found[path.name] = content
    return found


def strings(events: pl.DataFrame) -> dict[str, int]:
    """How many accounts hold each string of a log: values, and the words of texts."""
    held = []
    for name, kind in events.schema.items():
        if kind == pl.String:
            column = events.select("sequence_id", value=pl.col(name).str.to_lowercase())
            held += [column, column.with_columns(pl.col("value").str.split(" ")).explode("value")]
    return dict(pl.concat(held).unique().group_by("value").len().iter_rows())


def check(folder: Path, bundle: Bundle) -> None:
    """A bundle names nothing that few accounts of the log in a folder hold."""
    rare = [value for value, holders in strings(pl.read_csv(folder / "events.csv")).items() if holders < LEAST]
    assert len(rare) > 300
    found = {name: content.lower() for name, content in contents(bundle.path).items()}
    assert {"crowd.npz", "report.html", "evaluation.json", "golden.jsonl"} <= found.keys()
    assert b"item-common-1" in found["encoder.json"]
    assert {(name, value) for name, content in found.items() for value in rare if value.encode() in content} == set()
    assert b"known-type" in found["evaluation.json"]
    assert not any(b"alone-type" in content for content in found.values())


def test_an_anonymous_bundle_names_nothing_that_few_accounts_hold(anonymous: Path) -> None:
    check(anonymous, Bundle.open(anonymous / "bundle"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_that_holds_for_any_log(seed: int, tmp_path: Path) -> None:
    named_log(tmp_path, seed)
    check(tmp_path, fit_bundle(tmp_path / "events.csv", tmp_path / "labels.csv", tmp_path / "b", ANONYMOUS))


def test_the_same_log_is_named_by_a_bundle_that_is_not_anonymous(anonymous: Path, tmp_path: Path) -> None:
    """The search above finds what is there."""
    log = pl.read_csv(anonymous / "events.csv")
    encoder = fit_encoder(Log.of(log), None, 128)
    told = str(encoder.to_json()).lower()
    assert any(value in told for value, holders in strings(log).items() if holders < LEAST)


@pytest.mark.parametrize("huge", [987_654_321.5, 1e308])
def test_one_account_with_many_events_makes_no_edge_of_its_own(huge: float) -> None:
    rng = np.random.default_rng(0)
    accounts = np.concatenate((rng.integers(0, 79, 1600), np.full(400, 79)))
    prices = np.where(accounts == 79, huge * (1 - rng.random(2000) * 1e-3), rng.gamma(2.0, 50.0, 2000))
    rows = pl.DataFrame({"sequence_id": [f"u{a}" for a in accounts], "ts": np.arange(2000.0), "price": prices})
    encoder = fit_encoder(Log.of(rows.sort("sequence_id")), None, 128, least=LEAST)
    [bins] = [f for f in encoder.fields if f.name == "price"]
    assert isinstance(bins, Bins)
    assert len(bins.edges) > 10
    assert max(bins.edges) < huge / LEAST


def test_rows_that_few_use_are_blank_and_no_others_change(anonymous: Path) -> None:
    log = Log.of(pl.read_csv(anonymous / "events.csv").head(2000))
    encoder = fit_encoder(log, None, 128)
    encoded = encoded_log(encoder, log)
    rare = rare_rows(encoded, encoder.rows, LEAST)
    assert 0 < rare.sum() < encoder.rows
    holders = np.bincount(Usage.of(blanked(encoded, rare)).rows, minlength=encoder.rows)
    assert (holders == np.where(rare, 0, np.bincount(Usage.of(encoded).rows, minlength=encoder.rows))).all()
    assert not rare_rows(encoded, encoder.rows, 1).any()
    for e, blank in zip(encoded, blanked(encoded, rare), strict=True):
        assert ((blank.rows == e.rows) | ((blank.rows == PAD) & rare[e.rows])).all()
        assert all(((a == b) | ((a == PAD) & rare[b])).all() for a, b in zip(blank.chunks, e.chunks, strict=True))
