"""Corrects damaged fields of events with the values that the masked-event model finds likeliest.

As in pretraining, some events are hidden, and the model predicts each of their fields from the events around them. A
field counts as damaged if its value is far less likely than the likeliest one.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from service.encoding.chunks import pad
from service.encoding.encoder import EVENT, MASK, Encoded
from service.encoding.fields import FIRST, GAP_EDGES, Bins, Field, Gap
from service.encoding.reading import Reading
from service.encoding.values import Columns
from service.encoding.vocabulary import Vocabulary
from service.model.bundle import Bundle
from service.model.repair import BLAMED
from service.model.scorer import Score
from training.config import FitConfig
from training.data.log import LogError
from training.fit.bundle import MASKED
from training.network.model import BehaviourBert
from training.network.pretrain import MaskedEvents

PASSES = 7  # each pass hides one event in PASSES, about the share that pretraining hides
DAMAGED = 0.1  # a value is damaged if it is less likely than this share of the likeliest


@dataclass(frozen=True)
class Correction:
    """A field of one event: its column, its new value (`ts` as epoch seconds), and why."""

    column: str
    value: Any
    reason: str


class Corrector:
    """The masked-event model of a bundle.

    Raises:
        LogError: the bundle has no masked-event model.
    """

    def __init__(self, bundle: Bundle) -> None:
        if not (bundle.path / MASKED).is_file():
            raise LogError(
                f"{bundle.path}: has no masked-event model, which `correct` needs; fit it with --pretrain-epochs 5"
            )
        config = FitConfig(**bundle.manifest["config"]).settled
        self.encoder = bundle.encoder
        shape = self.encoder.deep_rows, max(len(bundle.types), 1), config.shape, config.max_positions, config.dropout
        self.masked = MaskedEvents(BehaviourBert(*shape), self.encoder)
        self.masked.load_state_dict(load_file(bundle.path / MASKED))
        self.masked.eval()
        self.fields = [s for s in self.masked.choices if _is_correctable(s.field)]

    def damaged(self, columns: Columns, length: int, answer: Score) -> dict[int, list[Correction]]:
        """What to correct in a sequence; nothing if all its events are blamed, or most of them are damaged."""
        if (answer.events >= BLAMED).all():
            return {}
        found = self.corrections(columns, self.encoder.encode(columns, length))
        return found if 2 * len(found) <= length else {}

    @torch.no_grad()
    def corrections(self, columns: Columns, encoded: Encoded) -> dict[int, list[Correction]]:
        """What to correct, by the event's index; events without damage are left out.

        Args:
            columns: the sequence's columns, in the log's order.
            encoded: the sequence.
        """
        found: dict[int, list[Correction]] = {}
        spelt = {
            f.name: _spellings(f, columns, self.encoder.reading) for f, *_ in self.fields if isinstance(f, Vocabulary)
        }
        for chunk, owners in zip(encoded.chunks, encoded.owners, strict=True):
            events = np.flatnonzero(chunk[:, 0] == EVENT)
            passes = [events[k::PASSES] for k in range(min(PASSES, len(events)))]
            ids = pad([chunk] * len(passes))
            for k, hidden in enumerate(passes):
                ids[k, hidden] = 0
                ids[k, hidden, 0] = MASK
            states, _ = self.masked.model.states(torch.from_numpy(ids))
            at = np.concatenate(passes)
            guess = self.masked.transform(states[np.repeat(np.arange(len(passes)), list(map(len, passes))), at])
            for field, slot, start, end in self.fields:
                table = self.masked.model.table.weight[
                    start + FIRST : end
                ]  # "missing" and "unknown" cannot be corrections
                likely = (guess @ table.T).softmax(dim=1).numpy()
                held = chunk[at, slot] - start - FIRST
                best = likely.argmax(axis=1)
                known = held >= 0
                p_held = likely[np.arange(len(at)), np.maximum(held, 0)]
                for i in np.flatnonzero(known & (p_held < DAMAGED * likely.max(axis=1))).tolist():
                    event, row, new = int(owners[at[i]]), int(held[i]), int(best[i])
                    value = _value(field, new, spelt.get(field.name, {}), columns, event)
                    if value is not None:
                        was, now = field.label(FIRST + row), field.label(FIRST + new)
                        reason = (
                            f"{field.name} {was} is {p_held[i]:.1%} likely beside the other events, "
                            f"{now} {likely[i, new]:.1%}"
                        )
                        name = "ts" if isinstance(field, Gap) else field.name
                        found.setdefault(event, []).append(Correction(name, value, reason))
        return found


def _is_correctable(field: Field) -> bool:
    return isinstance(field, Bins | Gap) or (isinstance(field, Vocabulary) and not field.identifier)


def _spellings(field: Vocabulary, columns: Columns, reading: Reading) -> dict[str, Any]:
    """How the sequence itself spells values."""
    return {field.known_as(v): v for v in columns.get(field.name, ()) if not reading.is_missing(v)}


def _value(field: Field, row: int, spelt: dict[str, Any], columns: Columns, event: int) -> Any:
    """The log's value for a row (from 0) of a field; None if the row does not stand for a single value."""
    if isinstance(field, Vocabulary):
        return spelt.get(field.values[row], field.values[row])
    if isinstance(field, Bins):
        if field.exact:
            return field.exact[row]
        low, high = field.edges[max(row - 1, 0)], field.edges[min(row, len(field.edges) - 1)]
        return (low + high) / 2
    ts = np.array(columns["ts"], dtype=np.float64)
    order = np.argsort(ts, kind="stable")
    place = int(np.flatnonzero(order == event)[0])
    if place == 0:
        return None
    low, high = GAP_EDGES[max(row - 1, 0)], GAP_EDGES[min(row, len(GAP_EDGES) - 1)]
    moved = ts[order[place - 1]] + math.sqrt(low * high)
    after = ts[order[place + 1]] if place + 1 < len(order) else math.inf
    return float(min(moved, after))  # events keep their order


def as_written(value: object, old: object, comma: bool = False) -> object:
    """A value in the same form as the old one: a whole number, a decimal number, or text.

    Args:
        comma: whether the log may write the column's numbers with a decimal comma.
    """
    if not isinstance(value, float):
        return value
    text = str(old).strip()
    if comma and "," in text:
        return str(round(value, 3)).replace(".", ",")
    try:
        whole = float(text) % 1 == 0 and "." not in text
    except ValueError:
        whole = False  # nothing was there, or no number
    written = round(value) if whole else round(value, 3)
    return str(written) if isinstance(old, str) else written
