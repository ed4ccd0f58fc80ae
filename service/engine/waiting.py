"""What waits in the batcher's queue: sequences as they come, and the chunks of those that need the graph."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, Protocol, TypeVar

from service.encoding.remembered import Remembered
from service.encoding.values import Columns, Ids
from service.engine.outputs import Row


class Chunked(Protocol):
    """A sequence as the graph takes it: chunks int32 (P, slots), at least one."""

    @property
    def chunks(self) -> list[Ids]: ...


Item = TypeVar("Item", bound=Chunked)
Answer = TypeVar("Answer")


class Sent(NamedTuple):
    """A sequence as it comes: as the encoder takes it, and whether the graph must run for it."""

    columns: Columns
    length: int
    remembered: Remembered | None = None
    in_full: bool = False


@dataclass(frozen=True)
class Early(Generic[Answer]):
    """The answer for a sequence that needs no graph."""

    answer: Answer


@dataclass(eq=False, slots=True)
class Waiting(Generic[Item, Answer]):
    """One sequence, from its arrival to its answer.

    Attributes:
        given: what came.
        tokens: positions it is taken to need, while it is not encoded; then those that still wait.
        due: virtual time; the smallest is served first.
        answer: resolves to the answer, or to what went wrong; cancelled when nobody waits for it any more.
        encoded: once it is.
        rows: what the engine said of each chunk so far.
        since: monotonic time of its arrival, seconds.
        spans: where the stages it goes through are noted, name, start and end; None where nobody traces it.
    """

    given: Sent
    tokens: int
    due: int
    answer: "asyncio.Future[Answer | Exception]"
    encoded: Item | None = None
    rows: "list[Row | None]" = field(default_factory=list)
    since: float = field(default_factory=time.monotonic)
    spans: list[tuple[str, float, float]] | None = None


@dataclass(eq=False, slots=True)
class Chunk(Generic[Item, Answer]):
    """One chunk of a waiting sequence: its rows int32 (P, slots), its number, and when it is due."""

    sequence: Waiting[Item, Answer]
    number: int
    ids: Ids
    due: int

    @property
    def length(self) -> int:
        return len(self.ids)
