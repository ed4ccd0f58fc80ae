"""How unlike chance it is what a crowd's state says of a sequence: surge, breadth, copy and lockstep.

- *surge*: a value that few hold is held by more accounts of late than usual. The measure is the signed root of the
  deviance of a negative binomial: how often it is held varies more than by chance alone, as tastes change.
- *breadth*: the mean surge of its values, of those that surge; accounts that are made alike surge in many at once.
  Nothing without times: later accounts do as well, as tastes have changed.
- *copy*: the share of its values, and of another account's, that both have (Jaccard).
- *lockstep*: the same of their order.

Groups rather than accounts are what fraud teams look for: Cao, Yang, Yu and Palow, "Uncovering large groups of active
malicious accounts in online social networks" (SynchroTrap), CCS 2014; Beutel, Xu, Guruswami, Palow and Faloutsos,
"CopyCatch: stopping group attacks by spotting lockstep behavior in social networks", WWW 2013; Jiang, Cui, Beutel,
Faloutsos and Yang, "CatchSync: catching synchronized behavior in large directed graphs", KDD 2014.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from service.encoding.held import Keys
from service.encoding.values import Floats
from service.model.looks import Look
from service.model.surging import HELD, Surging, deviance_root

MEASURES = ("surge", "breadth", "copy", "lockstep")
FEWEST_KNOWN = 50  # a state that knows fewer accounts is too young to tell
SEVERAL, FEWEST_VALUES = 5, 100  # of values that so many hold, so many must be there to tell a surge without times
BEYOND = 0.01  # share of them that surge more than those which show how much all of them do
NEVER = (1.0, 2.0)  # in place of COMMON: without times, a hit is seen as a whole, and FASHION tells it
UNREST = (1.1, 1.5)  # how much more than by chance, at which a surge begins to tell less, and tells nothing
BY_CHANCE = 7.0  # surge without times of a value that surges as the largest of them all would by chance; no alarm yet
WORDS = ("an hour", "a day", "a week")  # the HORIZONS in which a value may surge, all but the longest
ALL = "all"  # where no time is told


@dataclass(frozen=True)
class Surge:
    """The value of a sequence that surges most.

    Attributes:
        event: the event that names it last, in the caller's order.
        holders, usual: accounts that hold it, and how many usually do.
        within: one of WORDS, or ALL.
        fresh: whether these are accounts that are new.
    """

    event: int
    holders: float
    usual: float
    within: str
    fresh: bool


@dataclass(frozen=True)
class Together:
    """What the crowd says of N sequences that have T events in all.

    Attributes:
        measures: float64 (N, MEASURES); NaN where nothing is known of the crowd.
        events: float64 (T,), the surge of each event, sequence after sequence, events in the caller's order.
        most: N, what surges most; None where nothing does.
    """

    measures: Floats
    events: Floats
    most: list[Surge | None]

    @property
    def known(self) -> NDArray[np.bool_]:
        """Bool (N,): of which sequences anything is known of the crowd."""
        return ~np.isnan(self.measures[:, 0])

    @property
    def size(self) -> int:
        """Bytes in memory, about."""
        return self.measures.nbytes + self.events.nbytes + 250 * len(self.most)

    @classmethod
    def unknown(cls, lengths: Sequence[int]) -> "Together":
        """Nothing is known of the crowd."""
        return cls(np.full((len(lengths), len(MEASURES)), np.nan), np.zeros(sum(lengths)), [None] * len(lengths))

    def without_events(self) -> "Together":
        """The same sequences, of whose events nothing is known."""
        return replace(self, events=self.events[:0])

    def take(self, at: NDArray[np.integer], events: NDArray[np.integer]) -> "Together":
        """The sequences at the given positions, whose events are those given."""
        return Together(self.measures[at], self.events[events], [self.most[i] for i in at.tolist()])

    @classmethod
    def joined(cls, parts: Sequence["Together"]) -> "Together":
        """The sequences of all parts, one part after another."""
        measures, events = (np.concatenate([getattr(p, name) for p in parts]) for name in ("measures", "events"))
        return cls(measures, events, [one for p in parts for one in p.most])


@dataclass(frozen=True)
class Usual:
    """How common identifiers are among training's accounts.

    Attributes:
        keys: uint64 (V,), ascending; each identifier by itself, and by its side.
        holders: float64 (V,), accounts that name it.
        totals: float64 (2,), holders in all, by itself and by its side.
        values: float64 (2,), identifiers.
        accounts: training's accounts.
        steadiness: float64 (len(HELD),), by class of popularity, how steady a share is: the shape of the gamma
            distribution of its changes.
    """

    keys: Keys
    holders: Floats
    totals: Floats
    values: Floats
    accounts: int
    steadiness: Floats

    def save(self, path: Path) -> None:
        np.savez(path, **{f.name: getattr(self, f.name) for f in fields(self)})

    @classmethod
    def load(cls, path: Path) -> "Usual":
        """Reads what `save` wrote; raises ValueError or KeyError on anything else."""
        with np.load(path, allow_pickle=False) as kept:
            arrays = {f.name: kept[f.name] for f in fields(cls)}
        return cls(**(arrays | {"accounts": int(arrays["accounts"])}))

    def read(self, look: Look | None, length: int) -> Together:
        """What a state says of one sequence of `length` events; None if there is no state."""
        if look is None or look.known < FEWEST_KNOWN:
            return Together.unknown([length])
        events, most = np.zeros(length), None
        surge, breadth, told = self._surging.surge(look, events)
        if told:
            at, within, usual = told
            holders = float(look.holders[0, at, within])
            most = Surge(int(look.event[at]), holders, usual, WORDS[within], look.fresh)
        copy, lockstep = (self._surging.alike(one, look.known) for one in (look.copy, look.lockstep))
        return Together(np.array([[surge, breadth, copy, lockstep]]), events, [most])

    def deviations(self, look: Look, held: Floats, holders: Floats, totals: Floats) -> tuple[Floats, Floats]:
        """Float64 (K, 3), how far holders are above the usual number within WORDS, and that number.

        What is usual is by training, or by what it is held in the season beyond: a value that came up after training is
        soon usual, and none surges by it. Of what training hardly knows, a young state cannot tell what is usual.

        Args:
            look: which keys, and the age of the state.
            held: float64 (K,), how many of training's accounts name each key.
            holders, totals: float64 (K, 4), of those accounts that are asked about, see `Look`.
        """
        return self._surging.deviations(look, held, holders, totals)

    def no_fashion(self, look: Look, held: Floats) -> Floats:
        """Float64 (K,): 1 for a value that few hold, 0 for one that is in fashion.

        That is what a large part of the new and of the old accounts hold; and what many of both hold beyond the usual:
        attackers are either new accounts or old ones.
        """
        return self._surging.no_fashion(look, held)

    def known_holders(self, keys: Keys) -> Floats:
        """Float64 (K,): training's accounts that name each key."""
        return self._surging.known_holders(keys)

    @cached_property
    def _surging(self) -> Surging:
        return Surging(self.keys, self.holders, self.totals, self.values, self.accounts, self.steadiness)


@dataclass(frozen=True)
class Untimed(Usual):
    """The same, of a state that no time is told to.

    What is held more than by training's accounts may have come up since, and no time tells. So surges tell something
    only where values surge hardly more than they would by chance, but for a few: where what training's accounts hold is
    what others hold now, too. How much they surge is measured as by Devlin and Roeder, "Genomic control for association
    studies", Biometrics 1999, but at a quantile that few attackers' targets lie beyond.

    Attributes:
        scale: what surges are multiplied by, so that the largest of them all would be BY_CHANCE by chance; 0 where they
            tell nothing.
    """

    scale: float

    @classmethod
    def of(cls, usual: Usual, keys: Keys, sided: NDArray[np.bool_], holders: Floats) -> "Untimed":
        """The same beside a state.

        Args:
            keys: uint64 (V,), the identifiers of the state.
            sided: bool (V,), which of them are told by their side.
            holders: float64 (V,), accounts of the state that name each.
        """
        own = {f.name: getattr(usual, f.name) for f in fields(usual)} | {"steadiness": np.full(len(HELD), np.inf)}
        several = holders >= SEVERAL
        if several.sum() < FEWEST_VALUES:
            return cls(**own, scale=0.0)
        held, side = usual.known_holders(keys[several]), sided[several].astype(int)
        each = np.bincount(sided, weights=holders, minlength=2) / (usual.totals + 0.5 * usual.values + 0.5)
        surges = deviance_root(holders[several], each[side] * (held + 0.5), held + 0.5)
        chance, (least, most) = NormalDist().inv_cdf, UNREST
        unrest = float(np.quantile(surges, 1 - BEYOND)) / chance(1 - BEYOND)
        calm = min(max((most - unrest) / (most - least), 0.0), 1.0)
        return cls(**own, scale=calm * BY_CHANCE / chance(1 - 1 / len(surges)))

    def read(self, look: Look | None, length: int) -> Together:
        found = super().read(look, length)
        most = [replace(one, within=ALL) if one and self.scale else None for one in found.most]
        return Together(found.measures * (self.scale, 0.0, 1.0, 1.0), found.events * self.scale, most)

    @cached_property
    def _surging(self) -> Surging:
        return Surging(self.keys, self.holders, self.totals, self.values, self.accounts, self.steadiness, NEVER)


def shape_of(held: Floats | NDArray[np.int64], steady: Floats | float) -> Floats:
    """Gamma shape of shares that were learned from so many holders, and change by as much as `steady` tells."""
    return np.asarray(1 / (1 / (held + 0.5) + 1 / steady))
