"""What is asked of the crowd's state and what it answers: limits, looks and news. The state itself is in `crowd`."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.encoding.held import Held, Keys
from service.encoding.values import Floats

HORIZONS = np.array((3600.0, 86_400.0, 7 * 86_400.0, 90 * 86_400.0))  # seconds
STEP = 3600.0  # seconds, in which totals are kept
NEW_SECONDS = 7 * 86_400.0  # for which an account is new after its first event


@dataclass(frozen=True)
class Limits:
    """How much a state keeps.

    Attributes:
        accounts: accounts; those that were silent longest, by their own times, are dropped.
        keys: identifiers of one account that count.
        values: identifiers whose holders are known; the one that was named longest ago is dropped.
        hours: in which totals are known.
    """

    accounts: int = 20_000
    keys: int = 1024
    values: int = 200_000
    hours: int = 20_000


@dataclass(frozen=True)
class Alike:
    """The account that is most like a sequence.

    Attributes:
        account: its number, None if nobody is alike.
        share: how much of both is the same.
        keys: uint64 (m,), what of it a sketch shows.
        scale: how much there is for each that a sketch shows.
    """

    account: int | None
    share: float
    keys: Keys
    scale: float


NOBODY = Alike(None, 0.0, np.empty(0, dtype=np.uint64), 1.0)


@dataclass(frozen=True)
class Look:
    """What the state says of one sequence, K of whose identifiers are distinct (each once by itself, once by its side).

    Attributes:
        keys: uint64 (K,).
        sided: bool (K,), which of them are told by their side.
        event: int32 (K,), the event that names it last, in the caller's order.
        holders: float64 (2, K, 4), other accounts that name it around the same time, within each of HORIZONS: those
            that are new or not, as this account is, then the rest.
        totals: float64 (2, K, 4), the same over all identifiers, by themselves or by their side.
        fresh: whether the account is new.
        known: accounts in the state.
        age: seconds for which the state knows what happened before the look.
        copy, lockstep: the account that names most of the same, and the one with most of the same order.
    """

    keys: Keys
    sided: NDArray[np.bool_]
    event: NDArray[np.int32]
    holders: Floats
    totals: Floats
    fresh: bool
    known: int
    age: float
    copy: Alike
    lockstep: Alike


@dataclass(frozen=True)
class News:
    """What changed a state. Another state that takes it in as well knows the same of the account.

    Attributes:
        account: its number.
        first: time of its first event.
        before: the key that it named before `held`, 0 if none.
        held: from the first event to the last one that changed something; None: the account is forgotten.
    """

    account: int
    first: float
    before: int
    held: Held | None
