"""Reads events from a Kafka topic, sends them to a service's `/v1/events`, and writes decisions to another topic.

Delivery is at least once: an offset is committed only when the decisions on everything before it are durable. So events
that were in progress when something stopped are sent again. That does no harm, since each event has an id: the service
counts it once, and readers of the decisions recognise a repeated one by its `id` and `event_id`. Events that the
service has no time for stay in the topic.
"""

import json
import logging
from collections.abc import Sequence
from threading import Event as Flag
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge
from pydantic_core import to_json

from service.tools.remote import Answer, Remote

logger = logging.getLogger(__name__)
POLL_SECONDS = 0.5
DELIVERY_SECONDS = 30.0


class ConsumeError(RuntimeError):
    """Retrying would not help: the brokers refuse the request itself."""


class Consumer:
    """Turns events into decisions until it is stopped.

    Args:
        brokers: `host:port`, several separated by commas.
        source, sink: topics of events and of decisions.
        group: consumer group; consumers of the same group share the partitions.
        remote: the service.
        batch: most events in one request.
        options: further options of librdkafka, for consumer and producer.
    """

    def __init__(
        self, brokers: str, source: str, sink: str, group: str, remote: Remote, batch: int, options: dict[str, str]
    ) -> None:
        try:
            import confluent_kafka as kafka
        except ImportError as error:
            raise ValueError(f"consume needs the extra kafka: pip install 'recguard[kafka]' ({error})") from error
        common = {"bootstrap.servers": brokers, **options}
        reads = {"group.id": group, "enable.auto.commit": False, "auto.offset.reset": "earliest"}
        self.kafka, self.sink, self.remote, self.batch = kafka, sink, remote, batch
        self.consumer = kafka.Consumer(common | reads)
        self.producer = kafka.Producer(common | {"enable.idempotence": True, "linger.ms": 5})
        self.consumer.subscribe([source])
        self.stopping = Flag()
        self.registry = r = CollectorRegistry()
        self.events = Counter(
            "recguard_consumed_events", "Events whose outcome is durable, by outcome.", ["outcome"], registry=r
        )
        for outcome in ("scored", "kept", "failed"):
            self.events.labels(outcome)
        self.retries = Counter("recguard_consume_retries", "Requests that had to be made again.", registry=r)
        self.lag = Gauge("recguard_consume_lag_events", "Events in the topic that are not committed yet.", registry=r)

    def run(self) -> None:
        """Runs until `stop`; raises ConsumeError or RemoteError."""
        try:
            while not self.stopping.is_set():
                records = self.consumer.consume(self.batch, POLL_SECONDS)
                for record in records:
                    if record.error():
                        self._bear(record.error())
                good = [record for record in records if not record.error()]
                if good and (answers := self._answers(good)) is not None:
                    self._deliver(good, answers)
                    self._commit(good)
        finally:
            self.consumer.close()

    def stop(self) -> None:
        self.stopping.set()

    def _bear(self, error: Any) -> None:
        if error.fatal():
            raise ConsumeError(f"Kafka: {error.str()}")
        logger.warning("Kafka: %s", error.str())

    def _answers(self, records: Sequence[Any]) -> list[Answer] | None:
        """The service's answer to each record; None if the consumer was stopped before it had them."""
        read = [_event(record) for record in records]
        sent = [event for event in read if "error" not in event]
        answers = self.remote.ask(sent, self._wait) if sent else []
        if answers is None:
            return None
        said = iter(answers)
        found = [event if "error" in event else next(said) | {"event_id": event["event_id"]} for event in read]
        places = ({"topic": r.topic(), "partition": r.partition(), "offset": r.offset()} for r in records)
        return [answer | {"source": place} for answer, place in zip(found, places, strict=True)]

    def _wait(self, why: str, seconds: float) -> bool:
        """Waits because of what the service answers; false once the consumer is stopped."""
        self.retries.inc()
        logger.warning("the service answers %s; trying again", why)
        return not self.stopping.wait(seconds)

    def _deliver(self, records: Sequence[Any], answers: Sequence[Answer]) -> None:
        """Writes decisions and errors, and returns when they are durable."""
        failures: list[Any] = []
        outcomes = {"scored": 0, "kept": 0, "failed": 0}

        def delivered(error: Any, _: Any) -> None:
            if error is not None:
                failures.append(error)

        for record, answer in zip(records, answers, strict=True):
            outcome = "failed" if "error" in answer else "scored" if "score" in answer else "kept"
            outcomes[outcome] += 1
            if outcome != "kept":
                key = str(answer["id"]).encode() if answer.get("id") is not None else record.key()
                self._produce(key, to_json(answer), delivered)
        left = self.producer.flush(DELIVERY_SECONDS)
        if left or failures:
            raise ConsumeError(f"Kafka: {failures[0].str() if failures else f'{left} decisions are not delivered'}")
        for outcome, count in outcomes.items():
            self.events.labels(outcome).inc(count)

    def _produce(self, key: bytes | None, value: bytes, delivered: Any) -> None:
        while True:
            try:
                self.producer.produce(self.sink, value, key, on_delivery=delivered)
                return
            except BufferError:  # librdkafka's own queue is full
                self.producer.poll(0.1)

    def _commit(self, records: Sequence[Any]) -> None:
        latest = {(r.topic(), r.partition()): r.offset() + 1 for r in records}
        offsets = [self.kafka.TopicPartition(topic, part, offset) for (topic, part), offset in latest.items()]
        try:
            self.consumer.commit(offsets=offsets, asynchronous=False)
        except self.kafka.KafkaException as error:  # for example because another consumer has the partition now
            logger.warning("offsets are not committed, so these events come again: %s", error)
        lag = 0
        for (topic, part), offset in latest.items():
            _, end = self.consumer.get_watermark_offsets(self.kafka.TopicPartition(topic, part), cached=True)
            lag += max(end - offset, 0)
        self.lag.set(lag)


def _event(record: Any) -> Answer:
    """The event to send to `/v1/events` for a record, or its error; an event without an id gets its place as id."""
    place = f"{record.topic()}/{record.partition()}/{record.offset()}"
    try:
        event = json.loads(record.value() or b"")
        if not isinstance(event, dict):
            raise ValueError("an object is needed")
    except ValueError as error:
        detail = f"the record at {place} is not a JSON object with key and event: {error}"
        return {"id": None, "event_id": place, "error": {"title": "Malformed record", "status": 400, "detail": detail}}
    if "key" not in event and record.key() is not None:
        event["key"] = record.key().decode(errors="replace")
    event.setdefault("event_id", place)
    return event
