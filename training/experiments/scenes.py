"""A genuine log on which attacks are tried, and the poisoned logs on which recommenders are trained."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import polars as pl
import scipy.sparse as sp
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from service.encoding.values import Floats, catalogue_order
from service.model.repair import Choice, Repair, repair
from service.model.scorer import Score
from training.config import FitConfig
from training.data.attacks import ATTACKS, lacking, others
from training.data.catalogue import Catalogue, InjectConfig
from training.data.injection import inject
from training.data.labels import Labels
from training.data.log import Log, LogError
from training.data.surges import SURGES
from training.experiments.baselines import METHODS, Detector
from training.experiments.recommenders import RECOMMENDERS, Interactions, outcome
from training.fit.fitted import Fitted
from training.fit.pipeline import fit_model

HELD_BACK = 0.2  # of each user's events, the latest
# Items beside the target that all accounts of a bandwagon or segment attack hold. A recommender that counts who holds
# what hardly moves for the 5 that models are trained on; see Yang, Gong and Cai, "Fake co-visitation injection attacks
# to recommender systems", NDSS 2017.
SELECTED = 50
RIVAL = "TF-IDF + logistic regression"
CHOICES: tuple[Choice, ...] = get_args(Choice)
STRATEGIES = (*CHOICES, RIVAL)
TRAINING_SEED = 1000  # of the attacks that models are fitted on; those they judge have seeds from 0


@dataclass(frozen=True)
class Attack:
    """One attack on the log: its type, its size as a share of the genuine users, and the seed of what is drawn."""

    type: str
    size: float
    seed: int

    @property
    def name(self) -> str:
        return f"{self.type}-{self.size:g}-{self.seed}"


class Ground:
    """A genuine log on which attacks are tried: what is trained on, what is held back, and who is in which half."""

    def __init__(self, log: Log, config: FitConfig) -> None:
        if "item_id" not in log.events.columns:
            raise LogError("impact needs the column 'item_id'; name it with --columns item_id=THEIRS")
        self.config = config
        rng = np.random.default_rng(config.seed)
        keys = log.events["ts"].to_numpy() if not np.isnan(log.ends).any() else rng.random(log.events.height)
        late = np.zeros(log.events.height, dtype=bool)
        for a, b in zip(log.offsets[:-1], log.offsets[1:], strict=True):
            own = a + np.argsort(keys[a:b], kind="stable")
            late[own[len(own) - int(HELD_BACK * len(own)) :]] = True
        self.log = Log.of(log.events.filter(~late))
        names = log.events["item_id"].drop_nulls().unique().to_list()
        self.items = {item: i for i, item in enumerate(sorted(names, key=catalogue_order))}
        self.ids = {sequence_id: i for i, sequence_id in enumerate(self.log.ids)}
        # ratings are for recommenders that learn what is liked: those from the log's median on
        ratings = log.events["rating"].drop_nulls().to_numpy() if "rating" in log.events.columns else np.zeros(0)
        self.liked_from = float(np.median(ratings)) if len(ratings) else None
        self.held_back = self._matrix(log.events.filter(self.liked(log.events) & late))
        self.seen = self._matrix(self.log.events)
        self.half = rng.permutation(len(self.ids)) % 2
        known = Catalogue(self.log, InjectConfig(), rng)
        self.types = [kind for kind in ATTACKS if not lacking(kind, known)]

    def liked(self, events: pl.DataFrame) -> NDArray[np.bool_]:
        """Which events say that somebody likes an item; all that name one, where the log has no ratings."""
        of_item = events["item_id"].is_not_null().to_numpy()
        if self.liked_from is None:
            return of_item
        at_least: NDArray[np.bool_] = (events["rating"].fill_null(self.liked_from) >= self.liked_from).to_numpy()
        return of_item & at_least

    def _matrix(self, events: pl.DataFrame) -> sp.csr_matrix:
        events = events.filter(pl.col("item_id").is_not_null())
        at = ([self.ids[s] for s in events["sequence_id"]], [self.items[i] for i in events["item_id"]])
        return sp.csr_matrix((np.ones(events.height), at), shape=(len(self.ids), len(self.items)))

    def detectors(self, left_out: str | None) -> list[tuple[Fitted, Detector]]:
        """Ours and the rival, for each half fitted on the other; attacks of one model may be left out of training."""
        found = []
        for half in (0, 1):
            log, labels = self.training_log(half, left_out)
            fitted = fit_model(log, labels, np.arange(len(log)), self.config)
            found.append((fitted, METHODS[RIVAL](log, labels, self.config)))
        return found

    def training_log(self, half: int, left_out: str | None) -> tuple[Log, Labels]:
        """The users who are not of this half, with every surge and attack but those of the model that is left out.

        With a shilling model both its pushing and its nuking type are left out, with a copy all copies.
        """
        genuine = self.log.subset(np.flatnonzero(self.half != half))
        shown = [kind for kind in (others(left_out) if left_out else ATTACKS) if kind in self.types]
        config = InjectConfig(surges=tuple(SURGES), seed=TRAINING_SEED + half)
        events, table, _ = inject(genuine, None, config, shown)
        log = Log.of(events)
        return log, Labels.of(log.ids, table)

    def interactions(self, events: pl.DataFrame, users: NDArray[np.int64]) -> Interactions:
        """Who liked what, of events by these users, int64 (E,)."""
        liked = self.liked(events)
        items = [self.items[i] for i in events["item_id"].filter(liked)]
        shape = (int(users.max()) + 1, len(self.items))
        return Interactions(users[liked], np.array(items, dtype=np.int64), shape)


class Scene:
    """A log as a recommender is trained on it: the genuine users first, then those of an attack, if there is one."""

    def __init__(self, ground: Ground, attack: Attack | None) -> None:
        self.ground = ground
        genuine = len(ground.ids)
        if attack is None:
            self.log, self.pushed = ground.log, np.zeros(0, dtype=np.int64)
            self.place = np.arange(genuine)
        else:
            config = InjectConfig(
                size=attack.size, selected=SELECTED, campaigns=(genuine,), seed=ground.config.seed + attack.seed
            )
            events, _, sources = inject(ground.log, None, config, [attack.type])
            self.log = Log.of(events)
            source = dict(zip(sources["sequence_id"], sources["source"], strict=True))
            fresh = iter(range(genuine, len(self.log)))
            self.place = np.array(
                [ground.ids[s] if (s := source[i]) is not None else next(fresh) for i in self.log.ids]
            )
            pushed = sources["targets"].explode().drop_nulls().unique().to_list()
            self.pushed = np.array(sorted(ground.items[t] for t in pushed), dtype=np.int64)
        self.attacker = self.place >= genuine
        self.liked = ground.liked(self.log.events)
        owner = np.repeat(self.place, np.diff(self.log.offsets))
        self.interactions = ground.interactions(self.log.events, owner)

    def trained_on(self, weight: Floats, pushed: NDArray[np.int64]) -> dict[str, dict[str, list[float | None]]]:
        """What each recommender does for the genuine users once trained with these weights, float64 (T,), of events."""
        found, seed = {}, self.ground.config.seed
        for name, recommender in RECOMMENDERS.items():
            with threadpool_limits(1):
                scores = recommender(self.interactions, weight[self.liked], seed)
                found[name] = outcome(scores, self.ground.seen, self.ground.held_back, pushed, seed).to_json()
        return found

    def repaired(self, detectors: Sequence[tuple[Fitted, Detector]]) -> dict[str, Floats]:
        """For each strategy, what each event counts for after the repair, float64 (T,).

        Each half is judged beside the whole log, as a campaign's accounts, and those that they copy, are in both.
        """
        half = np.append(self.ground.half, np.arange(self.attacker.sum()) % 2)[self.place]
        found: dict[str, list[Floats]] = {name: [np.zeros(0)] * len(self.log) for name in STRATEGIES}
        for number, (fitted, rival) in enumerate(detectors):
            at = np.flatnonzero(half == number)
            part = self.log.subset(at)
            partial_types = fitted.calibration.partial_types(fitted.types)
            answers = fitted.scorer.scores(fitted.evidence(part, self.log, hindsight=True))
            dropped = rival.scores(part) >= rival.threshold
            for i, answer, drop in zip(at.tolist(), answers, dropped.tolist(), strict=True):
                decision = fitted.thresholds.decide(answer.score, answer.false_alarm_rate)
                for choice in CHOICES:
                    found[choice][i] = _weights(repair(answer, decision, partial_types, choice), answer)
                found[RIVAL][i] = np.full(len(answer.events), 0.0 if drop else 1.0)
        return {name: np.concatenate(parts) for name, parts in found.items()}

    def kept(self, weight: Floats) -> list[float]:
        """Shares of the genuine events and of the faked that are left."""
        faked = np.repeat(self.attacker, np.diff(self.log.offsets))
        return [float(weight[~faked].mean()), float(weight[faked].mean()) if faked.any() else float("nan")]


def _weights(advice: Repair, answer: Score) -> Floats:
    found = np.full(len(answer.events), advice.weight if advice.strategy == "weight" else 1.0)
    found[advice.drop] = 0.0
    return found
