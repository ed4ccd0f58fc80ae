"""How often a name may call, also where several workers count together."""

from pathlib import Path

import pytest

from service.api.rates import Buckets


@pytest.mark.parametrize("shared", [False, True])
def test_a_seconds_worth_may_come_at_once_and_then_one_waits(tmp_path: Path, shared: bool) -> None:
    buckets = Buckets(5, tmp_path if shared else None)
    waits = [buckets.spend("a") for _ in range(6)]
    assert waits[:5] == [0] * 5
    assert 0 < waits[5] <= 0.2
    assert buckets.spend("b") == 0


def test_workers_spend_from_one_bucket(tmp_path: Path) -> None:
    one, two = Buckets(4, tmp_path), Buckets(4, tmp_path)
    assert [buckets.spend("a") for buckets in (one, two, one, two)] == [0] * 4
    assert one.spend("a") > 0
    assert two.spend("a") > 0
    (tmp_path / "rate-a").write_bytes(b"half")
    assert one.spend("a") == 0, "what cannot be read is a full bucket"
