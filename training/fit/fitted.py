"""What a fit returns, and how its stages are told; `pipeline` and `private` make it, `bundle` writes it."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from service.encoding.encoder import Encoded, Encoder
from service.model.calibration import Calibration, Evidence
from service.model.cascade import Cascade
from service.model.ordinary import Ordinary
from service.model.policy import Thresholds
from service.model.scorer import Scorer, evidence
from service.model.support import Support
from service.model.tabular import Tabular
from service.model.togetherness import Together, Usual
from training.config import FitConfig
from training.data.log import Log
from training.data.replay import read_crowd
from training.data.split import SetAside
from training.evaluation.quality import Quality
from training.fit.calibration import Told
from training.fit.networks import Start
from training.fit.noise import Ledger
from training.fit.private_tabular import Tables
from training.fit.sequences import encoded_log
from training.network.finetune import run_torch
from training.network.model import BehaviourBert
from training.network.pretrain import MaskedEvents

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Released:
    """What a private fit has told of its accounts beside the model itself.

    Attributes:
        ledgers: what was spent on each set of accounts.
        tables: counts of values.
        scores: how many of the accounts that it was judged by score in each of SCORE_BINS.
    """

    ledgers: dict[str, Ledger]
    tables: Tables
    scores: list[int]


@dataclass
class Fitted:
    """The result of a fit: a model with its encoder, calibration and thresholds, and its quality on held-out data.

    `support` holds for sequences that are judged alone, `together` for those that are judged with the crowd, against
    what is `usual`; this and `together` are None where there are too few accounts, or nothing that they could share.
    `parts` says which sequences it was fitted on, and which its thresholds come from; `told`, what its calibration was
    fitted on. `released` is None unless the fit was private.
    """

    model: BehaviourBert
    tabular: Tabular
    encoder: Encoder
    types: list[str]
    told: Told
    calibration: Calibration
    cascade: Cascade
    support: Support
    usual: Usual | None
    together: Support | None
    ordinary: Ordinary
    thresholds: Thresholds
    parts: SetAside
    f1_threshold: float
    held_out: Quality
    held_out_scores: NDArray[np.float64]
    epochs: list[int]
    config: FitConfig
    clipped: dict[str, int]
    masked: MaskedEvents | None = None
    released: Released | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def encode(self, log: Log) -> list[Encoded]:
        return encoded_log(self.encoder, log)

    def evidence(self, log: Log, beside: Log | None = None, hindsight: bool = False) -> Evidence:
        """What the parts say of a log's sequences.

        Args:
            beside: the log whose accounts are the crowd; nobody sees his own history there, which has the same id. None
                if each is judged alone.
            hindsight: whether a sequence is judged beside what happened later, too.
        """
        encoded, together = self.encode(log), None
        if beside is not None and self.usual is not None:
            held = [e.held for e in encoded]
            crowd = held if beside is log else [e.held for e in self.encode(beside)]
            place = {name: i for i, name in enumerate(beside.ids)}
            of = np.array([place.get(name, len(crowd) + i) for i, name in enumerate(log.ids)], dtype=np.int64)
            together = Together.joined(read_crowd(self.usual, crowd, held, of, hindsight=hindsight))
        return evidence(encoded, run_torch(self.model), self.tabular, together)

    @property
    def scorer(self) -> Scorer:
        together = self.together.false_alarms if self.together else None
        return Scorer(self.calibration, self.support.false_alarms, self.types, together)

    @property
    def start(self) -> Start:
        return Start(self.model.state_dict(), self.encoder, self.types)


@contextmanager
def stage(name: str, seconds: dict[str, float]) -> Iterator[None]:
    """Logs a stage, and notes how long it took."""
    start = time.perf_counter()
    logger.info("%s ...", name)
    yield
    seconds[name] = round(time.perf_counter() - start, 2)
    logger.info("%s: %.1f s", name, seconds[name])
