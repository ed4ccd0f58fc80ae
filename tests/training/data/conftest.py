"""A genuine log, and the same with attackers of every type."""

import polars as pl
import pytest

from tests.support.logs import genuine_log
from training.data.catalogue import InjectConfig
from training.data.clean import clean_events
from training.data.injection import inject
from training.data.log import Log


@pytest.fixture(scope="module")
def config() -> InjectConfig:
    return InjectConfig(size=0.1, filler=(0.1, 0.2), campaigns=(5,))


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Log:
    path = tmp_path_factory.mktemp("log") / "e.csv"
    genuine_log(200).write_csv(path)
    return clean_events(path)[0]


@pytest.fixture(scope="module")
def injected(log: Log, config: InjectConfig) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    groups = pl.DataFrame({"sequence_id": log.ids, "label": "0", "gender": ["f", "m"] * 100})
    return inject(log, groups, config)
