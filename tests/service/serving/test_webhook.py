"""What becomes of blocked sequences while the disk or the receiver does not answer."""

import asyncio
import fcntl
import json
import threading
from pathlib import Path

from service.serving.webhook import MOST_IN_MESSAGE, MOST_WAITING, Webhook
from service.telemetry.metrics import Metrics
from tests.support.receiver import Receiver

SPILLED = 10 * MOST_IN_MESSAGE


def test_a_disk_that_hangs_keeps_one_spill_waiting_and_what_comes_after_is_counted(tmp_path: Path) -> None:
    metrics, path = Metrics(), tmp_path / "webhook-dead.jsonl"

    def dead() -> float | None:
        return metrics.registry.get_sample_value("recguard_webhook_sequences_total", {"outcome": "dead"})

    async def main() -> None:
        webhook = Webhook("http://127.0.0.1:1/", "", tmp_path, metrics)
        with path.open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            before = threading.active_count()
            for number in range(MOST_WAITING + 5 * SPILLED):
                webhook.offer({"id": number})
                await asyncio.sleep(0)
            assert threading.active_count() == before + 1
            assert len(webhook.waiting) <= MOST_WAITING
            assert dead() == 4 * SPILLED
        await webhook.close()

    asyncio.run(main())
    [line] = path.read_text().splitlines()
    assert [s["id"] for s in json.loads(line)["sequences"]] == list(range(MOST_IN_MESSAGE, MOST_IN_MESSAGE + SPILLED))
    assert dead() == 5 * SPILLED
    assert metrics.registry.get_sample_value("recguard_state_errors_total", {"what": "webhook"}) == 4


def test_who_is_forgotten_between_two_attempts_is_in_none_that_follows(tmp_path: Path) -> None:
    receiver = Receiver(500, 500)

    async def main() -> None:
        webhook = Webhook(f"{receiver.url}/", "", tmp_path, Metrics())
        webhook.start()
        for name in ("ann", "bob"):
            webhook.offer({"id": name})
        while not receiver.got:
            await asyncio.sleep(0.01)
        await webhook.forget("ann")
        while not receiver.accepted():
            await asyncio.sleep(0.01)
        await webhook.close()

    asyncio.run(asyncio.wait_for(main(), 60))
    assert [s["id"] for message in receiver.accepted() for s in message["sequences"]] == ["bob"]
    receiver.close()
