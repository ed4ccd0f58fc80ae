"""What tests of several rooms share: a small log with attacks in it, a bundle fitted on it, and databases."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from service.model.bundle import Bundle
from tests.support.logs import genuine_log
from tests.support.processes import needs
from tests.support.servers import Postgres, RedisServer
from tests.support.shared import made_once
from training.config import FitConfig
from training.data.attacks import ATTACKS
from training.data.catalogue import InjectConfig
from training.data.clean import clean_events
from training.data.injection import inject, write
from training.data.lookalikes import LOOKALIKES
from training.fit.bundle import fit_bundle

settings.register_profile("any machine", deadline=None)  # a busy one takes long now and then
settings.load_profile("any machine")


def pytest_collection_finish() -> None:
    """Lets garbage collection pass over what is imported by now, through which each training would look for garbage."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with events.csv and labels.csv: 240 genuine users, and attackers of every type that one history shows."""

    def make(folder: Path) -> None:
        genuine_log(240).write_csv(folder / "genuine.csv")
        log, _ = clean_events(folder / "genuine.csv")
        odd = [kind for kind in ATTACKS if kind not in LOOKALIKES]
        write(folder, *inject(log, None, InjectConfig(size=0.04, filler=(0.1, 0.3), campaigns=(3,)), odd))

    return made_once(tmp_path_factory, "attacked", make)


@pytest.fixture(scope="session")
def bundle(attacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A tiny bundle fitted on the attacked log."""
    # 68 genuine users are set aside for thresholds, too few to promise the usual 1 % of blocks
    config = FitConfig(preset="tiny", epochs=4, review_fpr=0.1, block_fpr=0.05)

    def make(folder: Path) -> None:
        fit_bundle(attacked / "events.csv", attacked / "labels.csv", folder / "bundle", config, name="test")

    return Bundle.open(made_once(tmp_path_factory, "bundle", make) / "bundle")


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    pytest.importorskip("psycopg")
    homes = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not homes:
        pytest.skip("postgresql is not installed")
    server = Postgres(homes[-1], tmp_path_factory.mktemp("postgres"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    needs("redis-server")
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()
