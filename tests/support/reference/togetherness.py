"""How unlike chance a look is, as `service/model/surging.pyx` compiles it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.encoding.held import Keys
from service.encoding.values import Floats
from service.model.looks import HORIZONS, Alike, Look
from service.model.togetherness import Surge, Together

SCARCE = 3  # holders in training; of a value that has fewer, the state must know what is usual
FEWEST_ACTIVE = 10  # of the accounts that are old, or new, that show what is in fashion among them
FEWEST_KNOWN = 50  # a state that knows fewer accounts is too young to tell
HELD = np.array((0, 1, 2, 5, 10, 30, 100))  # fewest holders in training of each class of popularity
FASHION = (0.1, 0.2)  # share of the active accounts at which a surge begins to count less, and counts nothing more
COMMON = (0.06, 0.12)  # the same, of all accounts, for one value alone: a hit begins as an attack does
ALIKE = (0.25, 0.5)  # the same, of those who hold it beyond the usual: old ones for each new one, or new for each old
WORDS = ("an hour", "a day", "a week")  # the HORIZONS in which a value may surge, all but the longest


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

    def read(self, look: Look | None, length: int) -> Together:
        """What a state says of one sequence of `length` events; None if there is no state."""
        if look is None or look.known < FEWEST_KNOWN:
            return Together.unknown([length])
        measures = [0.0, 0.0, self._alike(look.copy, look.known), self._alike(look.lockstep, look.known)]
        events, most = np.zeros(length), None
        if len(look.keys):
            found, usual = self.surges(look)
            measures[1] = float(np.maximum(found.max(axis=1), 0.0)[~look.sided].mean())
            found = found * self._not_common(look)[:, None]
            of_key = np.maximum(found.max(axis=1), 0.0)
            np.maximum.at(events, look.event, of_key)
            at = int(of_key.argmax())
            within = int(found[at].argmax())
            measures[0] = float(of_key[at])
            if of_key[at] > 0:
                told = float(look.holders[0, at, within]), float(usual[at, within])
                most = Surge(int(look.event[at]), *told, WORDS[within], look.fresh)
        return Together(np.array([measures]), events, [most])

    def surges(self, look: Look) -> tuple[Floats, Floats]:
        """Float64 (K, 3), how far the holders of each key are above the usual number within WORDS, and that number.

        These are the holders that are new or not, as the account is; a value that is in fashion does not surge.
        """
        held = self.known_holders(look.keys)
        found, usual = self.deviations(look, held, look.holders[0], look.totals[0])
        return found * self.no_fashion(look, held)[:, None], usual

    def deviations(self, look: Look, held: Floats, holders: Floats, totals: Floats) -> tuple[Floats, Floats]:
        """Float64 (K, 3), how far holders are above the usual number within WORDS, and that number.

        Args:
            look: which keys, and the age of the state.
            held: float64 (K,), how many of training's accounts name each key.
            holders, totals: float64 (K, 4), of those accounts that are asked about, see `Look`.
        """
        share = self._shares(look, held)
        # what it is held in the season beyond: a value that came up after training is soon usual, and none surges by it
        beyond = (holders[:, -1:] - holders[:, :-1]) / np.maximum(totals[:, -1:] - totals[:, :-1], 1.0)
        usual = totals[:, :-1] * np.maximum(share[:, None], beyond)
        shape = shape_of(held, self.steadiness[np.searchsorted(HELD, held, side="right") - 1])[:, None]
        found = deviance_root(holders[:, :-1], np.maximum(usual, 1e-9), shape)
        # of what training hardly knows, a young state cannot tell what is usual
        found[(held < SCARCE)[:, None] & (look.age < 2 * HORIZONS[:-1])] = 0.0
        return found, usual

    def _shares(self, look: Look, held: Floats) -> Floats:
        """Float64 (K,): the share of each key in all that training's accounts name."""
        side = look.sided.astype(np.int64)
        return np.asarray((held + 0.5) / (self.totals + 0.5 * self.values + 0.5)[side])

    def no_fashion(self, look: Look, held: Floats) -> Floats:
        """Float64 (K,): 1 for a value that few hold, 0 for one that is in fashion.

        That is what a large part of the new and of the old accounts hold; and what many of both hold beyond the usual:
        attackers are either new accounts or old ones.
        """
        totals, holders, active = look.totals[:, :, -1], look.holders[:, :, -1], self._active(look)
        part, usual = holders / np.maximum(active, 1.0), totals * self._shares(look, held)
        by_size = np.where(active[1] >= FEWEST_ACTIVE, part.min(axis=0), part[0])
        surely = np.array((0.0, 2.0))[:, None] * np.sqrt(usual + 1)  # what few others hold may be chance
        beyond = np.maximum(holders - usual - surely, 0.0)
        by_both = beyond[1] / np.maximum(beyond[0], 1e-9)
        return np.asarray(np.minimum(_fading(by_size, FASHION), _fading(by_both, ALIKE)))

    def _not_common(self, look: Look) -> Floats:
        """Float64 (K,): 1 for a value that hardly any of all accounts hold, 0 for one that not so few do."""
        share = look.holders[:, :, -1].sum(axis=0) / np.maximum(self._active(look).sum(axis=0), 1.0)
        return _fading(share, COMMON)

    def _active(self, look: Look) -> Floats:
        """Float64 (2, K): accounts of the same age and others, by how much they name in the season of each key."""
        by_account = self.accounts / np.maximum(self.totals, 1.0)
        return np.asarray(look.totals[:, :, -1] * by_account[look.sided.astype(np.int64)])

    def _alike(self, alike: Alike, known: int) -> float:
        """The share that is alike, less what chance finds among so many accounts."""
        surprise = alike.scale * np.log((self.accounts + 1) / (self.known_holders(alike.keys) + 0.5)).sum()
        return float(alike.share * max(1 - np.log(known) / surprise, 0.0)) if surprise > 0 else 0.0

    def known_holders(self, keys: Keys) -> Floats:
        """Float64 (K,): training's accounts that name each key."""
        at = np.minimum(np.searchsorted(self.keys, keys), max(len(self.keys) - 1, 0))
        return np.where(self.keys[at] == keys, self.holders[at], 0.0) if len(self.keys) else np.zeros(len(keys))


def _fading(x: Floats, between: tuple[float, float]) -> Floats:
    """1 up to the first of two values, 0 from the second on."""
    return np.asarray(np.clip((between[1] - x) / (between[1] - between[0]), 0.0, 1.0))


def shape_of(held: Floats | NDArray[np.int64], steady: Floats | float) -> Floats:
    """Gamma shape of shares that were learned from so many holders, and change by as much as `steady` tells."""
    return np.asarray(1 / (1 / (held + 0.5) + 1 / steady))


def deviance_root(n: Floats, mean: Floats, shape: Floats) -> Floats:
    """Signed root of the deviance of a negative binomial with a mean and a gamma shape; about normal where it holds."""
    with np.errstate(divide="ignore", invalid="ignore"):
        own = np.where(n > 0, n * np.log(n / mean), 0.0)
    deviance = 2 * (own - (n + shape) * np.log((n + shape) / (mean + shape)))
    return np.asarray(np.sign(n - mean) * np.sqrt(np.maximum(deviance, 0.0)))
