"""Measures how small a campaign is seen, what harm passes, and what it costs attackers who adapt to pass.

The model is fitted on one half of the genuine users, with every attack but that of the campaign. The campaign joins the
other half, and all of it is judged at once. Recommenders are trained on all genuine users and on what passes.
"""

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
import polars as pl
from threadpoolctl import threadpool_limits

from service.encoding.values import Floats
from training.config import FitConfig
from training.data.catalogue import InjectConfig
from training.data.injection import inject
from training.data.log import Log
from training.evaluation.quality import rate
from training.experiments.recommenders import RECOMMENDERS, Scores, outcome
from training.experiments.result_cache import Kept
from training.experiments.scenes import Ground
from training.fit.fitted import Fitted
from training.fit.pipeline import fit_model

DAY = 86400.0
KIND = "shared_target"  # what is measured: nothing but the campaign gives its accounts away
SIZES = (3, 5, 10, 30, 100)
POPULARITY = {"bottom fifth": (0.0, 0.2), "middle fifth": (0.4, 0.6), "top fifth": (0.8, 1.0)}
HARMED = ("item-kNN", "BPR")
REPEATS = 20  # campaigns of each size and popularity
ADAPTING, ADAPTING_REPEATS = 10, 5  # accounts of a campaign that adapts, and campaigns
FALSE_ALARMS = 0.01  # share of the genuine users who score above the highest that passes
JUDGED = 0  # the half of the genuine users among whom campaigns hide


class Field:
    """Where campaigns are tried: genuine users, a model that has not seen them, and recommenders."""

    def __init__(self, genuine: Log, config: FitConfig) -> None:
        self.ground, self.seed = Ground(genuine, config), config.seed
        self.crowd = self.ground.log.subset(np.flatnonzero(self.ground.half == JUDGED))
        self.recommend: dict[str, Scores] = {}  # trained on genuine users alone

    @cached_property
    def fitted(self) -> Fitted:
        """The model, which has seen neither these users nor such a campaign."""
        log, labels = self.ground.training_log(JUDGED, KIND)
        return fit_model(log, labels, np.arange(len(log)), self.ground.config)

    def campaign(self, accounts: int, popularity: tuple[float, float], repeat: int) -> tuple[pl.DataFrame, str]:
        """The events of one campaign, with the columns of the crowd's, and its target."""
        config = InjectConfig(
            accounts / len(self.crowd), campaigns=(accounts,), popularity=popularity, seed=self.seed + repeat
        )
        events, labels, sources = inject(self.crowd, None, config, [KIND])
        members = labels.filter(pl.col("label") == 1).select("sequence_id")
        target = sources.join(members, on="sequence_id")["targets"][0][0]
        faked = events.join(members, on="sequence_id", how="semi", maintain_order="left")
        named = faked.with_columns(sequence_id=pl.lit("campaign/") + pl.col("sequence_id"))
        empty = self.crowd.events.clear()
        return pl.concat((empty, named), how="diagonal_relaxed").select(empty.columns), target

    def scores(self, log: Log, beside: Log) -> Floats:
        """Float64 (N,): how anomalous the model finds each sequence beside a crowd, once all has happened."""
        return self.fitted.calibration.score(self.fitted.evidence(log, beside, hindsight=True))

    def passing(self, faked: pl.DataFrame) -> list[str]:
        """The accounts of a campaign that score no higher than all but FALSE_ALARMS of the crowd beside them."""
        log = Log.of(pl.concat((self.crowd.events, faked), how="vertical_relaxed"), self.crowd.reading)
        score, genuine = self.scores(log, log), len(self.crowd)
        highest = np.quantile(score[:genuine], 1 - FALSE_ALARMS, method="higher")
        return [name for name, one in zip(log.ids[genuine:], score[genuine:], strict=True) if one <= highest]

    def gain(self, recommender: str, faked: pl.DataFrame, target: str) -> float:
        """How much more often genuine users are recommended the target once these events are learned from."""
        if not faked.height:
            return 0.0
        if recommender not in self.recommend:
            self.recommend[recommender] = self._trained(recommender, faked.clear())
        return self._hits(self._trained(recommender, faked), target) - self._hits(self.recommend[recommender], target)

    def _trained(self, recommender: str, faked: pl.DataFrame) -> Scores:
        both = pl.concat((self.ground.log.events, faked), how="vertical_relaxed")
        numbers = {
            name: i for i, name in enumerate((*self.ground.ids, *faked["sequence_id"].unique(maintain_order=True)))
        }
        owner = np.array([numbers[name] for name in both["sequence_id"]], dtype=np.int64)
        interactions = self.ground.interactions(both, owner)
        with threadpool_limits(1):
            return RECOMMENDERS[recommender](interactions, np.ones(len(interactions.users)), self.seed)

    def _hits(self, recommend: Scores, target: str) -> float:
        pushed = np.array([self.ground.items[target]])
        found = outcome(recommend, self.ground.seen, self.ground.held_back, pushed, self.seed)
        return float(np.nanmean(found.hit))


def campaigns(genuine: Log, config: FitConfig, kept: Kept, repeats: int = REPEATS) -> dict[str, Any]:
    """The curve over sizes and popularity, and the table of those who adapt.

    Args:
        genuine: a log without attackers, with items.
        kept: keeps a named measurement once it is done.
        repeats: campaigns of each size and popularity.
    """
    field = Field(genuine, config)
    curve = [
        {
            "accounts": accounts,
            "popularity": words,
            **kept(f"campaigns-{accounts}-{words.split()[0]}", partial(_size, field, accounts, popularity, repeats)),
        }
        for words, popularity in POPULARITY.items()
        for accounts in SIZES
    ]
    adapting = [
        {
            "way": way,
            "amount": f"{amount:g} {unit}" if amount else unit,
            **kept(f"{way.replace(' ', '-')}-{amount:g}", partial(_evading, field, make, amount)),
        }
        for way, (make, unit, amounts) in WAYS.items()
        for amount in amounts
        if make is not _spread or not np.isnan(genuine.ends).any()
    ]
    return {"kind": KIND, "repeats": repeats, "curve": curve, "adapting": adapting}


def _size(field: Field, accounts: int, popularity: tuple[float, float], repeats: int) -> dict[str, Any]:
    """Recall at FALSE_ALARMS, and the hit ratio that what passes gains; [mean, low, high], 95 % of a normal mean."""
    passed, gains = 0, {name: np.zeros(repeats) for name in HARMED}
    for repeat in range(repeats):
        faked, target = field.campaign(accounts, popularity, repeat)
        passing = field.passing(faked)
        passed += len(passing)
        for name in HARMED:
            through = faked.filter(pl.col("sequence_id").is_in(passing))
            gains[name][repeat] = field.gain(name, through, target)
    total = accounts * repeats
    return {"recall": rate(total - passed, total), "gain": {name: _mean(drawn) for name, drawn in gains.items()}}


def _mean(drawn: Floats) -> list[float]:
    mean, error = float(drawn.mean()), float(drawn.std(ddof=1) / np.sqrt(len(drawn))) if len(drawn) > 1 else np.nan
    return [mean, mean - 1.96 * error, mean + 1.96 * error]


def _evading(field: Field, make: "Way", amount: float) -> dict[str, Any]:
    """How many of those who adapt pass, and what one that passes costs, in accounts and in events."""
    passed = accounts = events = 0
    for repeat in range(ADAPTING_REPEATS):
        faked = make(field, repeat, amount)
        passed += len(field.passing(faked))
        accounts += faked["sequence_id"].n_unique()
        events += faked.height
    return {
        "recall": rate(accounts - passed, accounts),
        "accounts": accounts / passed if passed else None,
        "events": events / passed if passed else None,
    }


def camouflaged(events: pl.DataFrame, normal: pl.DataFrame, times: int = 1) -> pl.DataFrame:
    """Adds `times` as many events from normal sequences, mostly on popular items, at times or places in between."""
    rng = np.random.default_rng(events.height)
    ts = events["ts"].to_numpy()
    more = times * len(ts)
    timed = not np.isnan(ts).any()
    at = rng.uniform(ts.min(), ts.max(), more) if timed else rng.random(more)
    drawn = normal.sample(more, with_replacement=True, seed=events.height).with_columns(
        sequence_id=pl.lit(events["sequence_id"][0]),
        ts=pl.Series(np.floor(at) if (ts % 1 == 0).all() else at) if timed else None,
    )
    both = pl.concat((events, drawn.select(events.columns).cast(events.schema)))
    return both if timed else both[np.argsort(np.concatenate((np.linspace(0, 1, len(ts)), at)), kind="stable")]


def _plain(field: Field, repeat: int, amount: float) -> pl.DataFrame:
    """A campaign of accounts that do not adapt."""
    return field.campaign(ADAPTING, POPULARITY["middle fifth"], repeat)[0]


def _padded(field: Field, repeat: int, amount: float) -> pl.DataFrame:
    """Each account adds `amount` genuine events to each of its own."""
    accounts = _plain(field, repeat, amount).partition_by("sequence_id", maintain_order=True)
    return pl.concat(camouflaged(account, field.crowd.events, int(amount)) for account in accounts)


def _held_back(field: Field, repeat: int, amount: float) -> pl.DataFrame:
    """The events say nothing but who, when and which item."""
    faked = _plain(field, repeat, amount)
    silent = [name for name in faked.columns if name not in ("sequence_id", "ts", "item_id")]
    return faked.with_columns(pl.lit(None, dtype=faked.schema[name]).alias(name) for name in silent)


def _spread(field: Field, repeat: int, amount: float) -> pl.DataFrame:
    """The accounts act one after another, each as it would, over `amount` days more."""
    faked = _plain(field, repeat, amount)
    later = np.floor(np.linspace(0, amount * DAY, ADAPTING))
    number = faked["sequence_id"].rank("dense").to_numpy().astype(np.int64) - 1
    return faked.with_columns(ts=pl.col("ts") + pl.Series(later[number]))


def _probed(field: Field, repeat: int, amount: float) -> pl.DataFrame:
    """For each account that acts, `amount` drafts are tried beside the crowd; the one that scores least acts."""
    drafts, _ = field.campaign(ADAPTING * int(amount), POPULARITY["middle fifth"], repeat)
    each = drafts.partition_by("sequence_id", maintain_order=True)
    score = field.scores(Log.of(pl.concat(each), field.crowd.reading), field.crowd)
    best = score.reshape(ADAPTING, -1).argmin(axis=1) + np.arange(ADAPTING) * int(amount)
    acting: pl.DataFrame = pl.concat([each[i] for i in best.tolist()])
    return acting


Way = Callable[[Field, int, float], pl.DataFrame]
WAYS: dict[str, tuple[Way, str, Sequence[float]]] = {  # each with what its amounts are of, and the amounts
    "as they are": (_plain, "", (0,)),
    "padding": (_padded, "genuine events for each of their own", (1, 3, 10)),
    "holding back": (_held_back, "all but item and time", (0,)),
    "spreading": (_spread, "days", (7, 30, 90)),
    "probing": (_probed, "drafts for each account", (2, 8, 32)),
}
