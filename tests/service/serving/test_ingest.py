"""What is taken in with live events, and what is said of it."""

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from service.encoding.encoder import Encoder
from service.encoding.fields import Bins, Field
from service.encoding.habit import Habit
from service.encoding.reading import PLAIN, Reading
from service.encoding.vectors import Codebook
from service.encoding.vocabulary import Vocabulary
from service.model.bundle import Bundle
from service.schemas.problems import Problem
from service.serving.ingest import Ingest
from service.settings import Settings
from service.telemetry.metrics import Metrics

ACTION, PRICE = Vocabulary("action", ["a", "b"], identifier=False), Bins("price", [1.0])


def bundle(*sources: Field) -> Bundle:
    """Of a bundle only its encoder is asked."""
    shares = [(np.ones(f.size) / f.size).tolist() for f in sources]
    habits = [Habit("habit", [f.name for f in sources], [10.0] * len(sources), shares)] if sources else []
    return cast(Bundle, SimpleNamespace(encoder=Encoder([ACTION, PRICE, *habits], PLAIN)))


def test_a_model_of_other_habits_is_said_once_and_begins_a_new_past(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ingest = Ingest(Settings(bundle=tmp_path), Metrics())

    async def summary(of: Bundle, number: int) -> bytes:
        event: dict[str, Any] = {"ts": 1.7e9 + number, "action": "a", "price": 2.0}
        body = json.dumps({"events": [{"key": "u", "event_id": f"e{number}", "event": event}]}).encode()
        taken = await ingest.take(body, of, asyncio.get_running_loop().time() + 10)
        return taken.due.pasts[0]

    async def run() -> list[bytes]:
        served = [bundle(ACTION), bundle(ACTION), bundle(), bundle(ACTION), bundle(ACTION, PRICE), bundle(ACTION)]
        return [await summary(of, number) for number, of in enumerate(served)]

    found = asyncio.run(run())
    assert [len(summary) // 8 for summary in found] == [2, 2, 0, 2, 3, 2], "the tag, and a value of each source"
    assert found[0][:4] == found[3][:4] == found[5][:4] != found[4][:4]
    assert [r.message for r in caplog.records].count(caplog.records[0].message) == 2
    assert "other values" in caplog.records[0].message
    assert found[0] == found[5]


def test_an_event_that_is_too_large_is_refused_with_what_to_do(tmp_path: Path) -> None:
    ingest, vectors = Ingest(Settings(bundle=tmp_path), Metrics()), np.zeros((1, 1, 400), dtype=np.float16)
    event = {"ts": 1.7e9, "action": "a", "picture": [0.123456] * 400}

    async def refusal(reading: Reading) -> str:
        of = cast(Bundle, SimpleNamespace(encoder=Encoder([ACTION, PRICE], reading)))
        body = json.dumps({"events": [{"key": "u", "event": event}]}).encode()
        with pytest.raises(Problem) as refused:
            await ingest.take(body, of, asyncio.get_running_loop().time() + 10)
        return str(refused.value.errors)

    assert "2048 may be kept: see RECGUARD_LIVE_EVENT_BYTES" in asyncio.run(refusal(PLAIN))
    reads = Reading.of(codebooks={"picture": Codebook("picture", 400, False, 1.0, vectors)})
    assert "send vectors as base64 of float16, or raise RECGUARD_LIVE_EVENT_BYTES" in asyncio.run(refusal(reads))
