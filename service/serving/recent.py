"""The latest answer to each account, with the sequence as it was sent: in this process's memory, and bounded.

The crowd's state holds hashes only. What is kept here gives names to those who act together, and to what they push, and
lets them be judged again.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json, to_json

from service.encoding.columns import columns_of
from service.encoding.encoder import Encoder
from service.encoding.vocabulary import key_of
from service.schemas.messages import Sequence

OVERHEAD = 1500  # bytes of an answer beside its events, a summary of the past among them
PARTS = ("score_id", "score", "decision", "type", "support")  # of an answer


@dataclass(slots=True)
class Kept:
    """An answer to an account.

    Attributes:
        id, user_id, segment: of the sequence.
        events: its events as compact JSON.
        past, summary: what was told of the account's past: `past` as compact JSON, or the summary of a live window.
        result: PARTS of its answer.
        version: of the bundle that gave it.
        live: whether it was a live window.
        again: whether it has been judged again.
    """

    id: str
    user_id: str | None
    segment: str | None
    events: bytes
    past: bytes
    summary: bytes
    result: dict[str, Any]
    version: str
    live: bool
    again: bool = False

    @property
    def sequence(self) -> Sequence:
        """The sequence as it was sent."""
        events, past = from_json(self.events), from_json(self.past)
        return Sequence(id=self.id, user_id=self.user_id, segment=self.segment, events=events, past=past)

    @property
    def size(self) -> int:
        """Bytes, about."""
        return len(self.events) + len(self.past) + OVERHEAD

    def name(self, key: int, encoder: Encoder) -> tuple[str, str] | None:
        """The column and the value that a number stands for, as this sequence has it; None if it does not."""
        columns, _ = columns_of(from_json(self.events))
        for vocabulary in (v for v in encoder.vocabularies if v.identifier):
            values = encoder.reading.spelt(vocabulary.name, columns.get(vocabulary.name, ()))
            for value in dict.fromkeys(v for v in values if not isinstance(v, list | dict)):
                if value is not None and key_of(vocabulary.name, vocabulary.known_as(value)) == key:
                    return vocabulary.name, str(value)
        return None


class Recent:
    """The latest answers by account, of which the oldest go first.

    Args:
        most: bytes in all.
    """

    def __init__(self, most: int) -> None:
        self.most, self.size = most, 0
        self.answers: OrderedDict[int, Kept] = OrderedDict()

    def keep(
        self, account: int, sequence: Sequence, summary: bytes, result: dict[str, Any], version: str, live: bool
    ) -> None:
        """Keeps an answer in the place of the account's last one."""
        self.forget(account)
        told = {name: result[name] for name in PARTS}
        s = sequence
        kept = Kept(s.id, s.user_id, s.segment, to_json(s.events), to_json(s.past), summary, told, version, live)
        self.answers[account] = kept
        self.size += kept.size
        while self.size > self.most:
            self.forget(next(iter(self.answers)))

    def forget(self, account: int) -> None:
        """Drops what is kept of an account."""
        if (kept := self.answers.pop(account, None)) is not None:
            self.size -= kept.size
