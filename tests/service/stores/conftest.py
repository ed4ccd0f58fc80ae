from collections.abc import Iterator
from pathlib import Path

import pytest

from service.stores.verdicts import Store


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty store, in each database."""
    url = "" if request.param == "sqlite" else request.getfixturevalue("postgres").url
    found = Store(url, tmp_path)
    found.prune(0, 0)  # what a test before left
    for one in found.exempt():
        found.unexempt(one.account)
    yield found
    found.close()
