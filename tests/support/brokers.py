"""Kafka's own protocol, spoken by the mock brokers of librdkafka; a test that imports this skips without its client."""

import json
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.processes import wait_until

kafka = pytest.importorskip("confluent_kafka")


@dataclass(frozen=True)
class Brokers:
    """Three brokers that live as long as the client that holds them."""

    holder: Any
    address: str

    @classmethod
    def start(cls) -> "Brokers":
        holder = kafka.Producer({"test.mock.num.brokers": 3, "bootstrap.servers": "unused"})
        found = holder.list_topics(timeout=20).brokers.values()
        return cls(holder, ",".join(f"{b.host}:{b.port}" for b in found))

    def send(self, topic: str, records: list[tuple[str | None, Any]]) -> None:
        """Sends records of a key and a value: bytes as they are, anything else as JSON."""
        producer = kafka.Producer({"bootstrap.servers": self.address})
        for key, value in records:
            producer.produce(topic, value if isinstance(value, bytes) else json.dumps(value), key)
        assert producer.flush(20) == 0

    def read(self, topic: str) -> "Reader":
        return Reader(self.address, topic)


class Reader:
    """All records of a topic so far."""

    def __init__(self, address: str, topic: str) -> None:
        settings = {"bootstrap.servers": address, "group.id": f"read {topic}", "allow.auto.create.topics": True}
        self.consumer = kafka.Consumer(settings)

        def partitions() -> list[int]:  # the first to ask for a topic makes it
            return list(self.consumer.list_topics(topic, timeout=20).topics[topic].partitions)

        wait_until(lambda: bool(partitions()))
        self.consumer.assign([kafka.TopicPartition(topic, p, kafka.OFFSET_BEGINNING) for p in partitions()])
        self.found: list[dict[str, Any]] = []

    def more(self) -> list[dict[str, Any]]:
        for record in self.consumer.consume(1000, 0.2):
            if not record.error():
                self.found.append(json.loads(record.value()))
        return self.found
