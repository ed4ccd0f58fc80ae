"""Makes labelled logs of actions alone, without items or times, where anomalies show in nothing but order or change.

`order` writes short sessions as systems log them, where an anomalous one holds what a genuine one holds, in an order
that breaks the grammar. `takeover` writes long histories of users with habits of their own, where the end of an
anomalous one is somebody else's. What counts alone can tell of the first is nothing; of the second, that an account now
does what it did not do before.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

ANOMALOUS = 0.25  # share of the accounts

# of `order`
GRAMMARS, STATES, BRANCHES = 3, 6, 2  # grammars, states of each, and what may be done in a state
LENGTHS = (20, 60)  # fewest and most actions of a session
DEEPEST = 2  # procedures that may be open within one another
STEPS = ("read", "write", "list", "query", "copy", "move", "rename", "check", "send", "receive", "parse", "sort")
THINGS = ("file", "socket", "table", "channel")  # that procedures open, and close when they end
WORKERS = ("worker 1", "worker 2", "worker 3")  # who take the lock, and release it
NOISE = ("ping", "poll", "heartbeat")  # which may come anywhere
# how likely each action is beside the usual step of a state, which has 1; regular, as what systems log is
WEIGHTS = {"open": 0.12, "close": 0.4, "lock": 0.06, "unlock": 0.3} | dict.fromkeys(NOISE, 0.01)
UNUSUAL = 0.1  # of a state's other steps, together
STRETCH, BLOCK = (6, 12), (3, 6)  # fewest and most actions that are shuffled, and of a block that is swapped

# of `takeover`
VOCABULARY = 120  # different actions
HISTORY = (300, 1000)  # fewest and most actions of a user
LAST = 100  # actions of another user at the end of an account that is taken over
SHARES = 0.3  # Dirichlet concentration of everybody's shares
LIKE_ALL = 200.0  # concentration of a user's own shares around everybody's
PROCEDURES, LONGEST = 30, 8  # little procedures that users repeat, and the actions of the longest
FAVOURITES, DRIFT = 1.0, 2.0  # concentrations of a user's favourites, and of the favourites of the day around these
NEW_DAY = 0.02  # probability, before each thing that a user does, that the favourites drift
REPEATING = (0.3, 0.7)  # share of what a user does that is a procedure, at least and at most


@dataclass(frozen=True)
class Account:
    """One sequence: its actions, int8 labels of them, and its type; None if it is genuine."""

    actions: list[str]
    event_label: NDArray[np.int8]
    type: str | None

    @classmethod
    def genuine(cls, actions: list[str]) -> "Account":
        return cls(actions, np.zeros(len(actions), dtype=np.int8), None)


@dataclass(frozen=True)
class State:
    """Where a session stands: the state, what is open with the state to return to, and who holds the lock."""

    at: int
    open: tuple[tuple[str, int], ...] = ()
    owner: str | None = None

    @property
    def unfinished(self) -> int:
        """Actions that are still needed before the session can end."""
        return len(self.open) + (self.owner is not None)


@dataclass(frozen=True)
class Grammar:
    """What may follow what: steps from state to state, procedures that nest, a lock, and noise.

    What is opened must be closed, the latest first. A lock is released by who took it, however much comes between.

    Attributes:
        steps: for each state, what may be done in it, and the state that each leads to; the usual first.
        begins: the state in which the procedure on each of THINGS begins.
    """

    steps: Sequence[Mapping[str, int]]
    begins: Mapping[str, int]

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> "Grammar":
        steps = [
            {str(name): int(rng.integers(STATES)) for name in rng.choice(STEPS, BRANCHES, replace=False)}
            for _ in range(STATES)
        ]
        return cls(steps, {thing: int(rng.integers(STATES)) for thing in THINGS})

    def after(self, state: State) -> dict[str, State]:
        """What may be done in a state, and where it leads."""
        found = {step: replace(state, at=to) for step, to in self.steps[state.at].items()}
        if len(state.open) < DEEPEST:
            for thing, begin in self.begins.items():
                found[f"open {thing}"] = replace(state, at=begin, open=(*state.open, (thing, state.at)))
        if state.open:
            thing, back = state.open[-1]
            found[f"close {thing}"] = replace(state, at=back, open=state.open[:-1])
        if state.owner is None:
            found |= {f"lock {worker}": replace(state, owner=worker) for worker in WORKERS}
        else:
            found[f"unlock {state.owner}"] = replace(state, owner=None)
        return found | dict.fromkeys(NOISE, state)

    def session(self, length: int, rng: np.random.Generator) -> list[str]:
        """A session of so many actions, after which nothing is open."""
        state, actions = State(0), list[str]()
        for left in range(length - 1, -1, -1):
            able = {action: to for action, to in self.after(state).items() if to.unfinished <= left}
            names = list(able)
            weight = np.array([_weight(name, place) for place, name in enumerate(names)])
            actions.append(names[rng.choice(len(names), p=weight / weight.sum())])
            state = able[actions[-1]]
        return actions

    def follows(self, actions: Sequence[str]) -> bool:
        """Whether a session keeps to the grammar."""
        state: State | None = State(0)
        for action in actions:
            state = self.after(state).get(action) if state else None
        return state is not None and not state.unfinished


def _weight(action: str, place: int) -> float:
    """How likely an action is, given its place among those that may be done: steps come first."""
    word = action.split()[0]
    among = {"open": len(THINGS), "lock": len(WORKERS)}.get(word, 1)
    return WEIGHTS[word] / among if word in WEIGHTS else UNUSUAL / (BRANCHES - 1) if place else 1.0


def _shuffled(length: int, actions: Sequence[str], rng: np.random.Generator) -> NDArray[np.int64]:
    size = int(rng.integers(STRETCH[0], STRETCH[1] + 1))
    at = np.arange(length)
    start = int(rng.integers(length - size + 1))
    at[start : start + size] = rng.permutation(at[start : start + size])
    return at


def _swapped(length: int, actions: Sequence[str], rng: np.random.Generator) -> NDArray[np.int64]:
    size = int(rng.integers(BLOCK[0], BLOCK[1] + 1))
    at = np.arange(length)
    first = int(rng.integers(length - 2 * size + 1))
    second = int(rng.integers(first + size, length - size + 1))
    at[first : first + size], at[second : second + size] = np.arange(size) + second, np.arange(size) + first
    return at


def _reversed(length: int, actions: Sequence[str], rng: np.random.Generator) -> NDArray[np.int64]:
    at = np.arange(length)
    first = int(rng.integers(length - 1))
    at[first], at[first + 1] = first + 1, first
    return at


def _crossed(length: int, actions: Sequence[str], rng: np.random.Generator) -> NDArray[np.int64]:
    at = np.arange(length)
    ends = [i for i, action in enumerate(actions) if action.split()[0] in ("close", "unlock")]
    pairs = [(i, k) for i in ends for k in ends if i < k and actions[i].split()[0] == actions[k].split()[0]]
    if pairs:
        i, k = pairs[int(rng.integers(len(pairs)))]
        at[i], at[k] = k, i
    return at


# how the order of a session is broken: a stretch is shuffled, two blocks or two neighbours change places, or two ends
# do, so that what is closed is not what was opened, or another releases the lock
VIOLATIONS: dict[str, Callable[[int, Sequence[str], np.random.Generator], NDArray[np.int64]]] = {
    "shuffled": _shuffled,
    "swapped": _swapped,
    "reversed": _reversed,
    "crossed": _crossed,
}


def broken(grammar: Grammar, actions: list[str], kind: str, rng: np.random.Generator) -> Account | None:
    """The same actions in an order that breaks the grammar; None where the drawn order still keeps to it.

    Events are labelled anomalous where another action stands than before.
    """
    changed = [actions[i] for i in VIOLATIONS[kind](len(actions), actions, rng).tolist()]
    if grammar.follows(changed):
        return None
    moved = np.array([a != b for a, b in zip(actions, changed, strict=True)], dtype=np.int8)
    return Account(changed, moved, kind)


def order(anomalous: NDArray[np.bool_], rng: np.random.Generator) -> list[Account]:
    """Sessions of a few grammars; those that are anomalous break theirs, in each of VIOLATIONS equally often.

    Every session is drawn until it can be broken, the genuine ones too, or the counts would tell who could be.
    """
    grammars = [Grammar.drawn(rng) for _ in range(GRAMMARS)]
    place = np.where(anomalous, np.cumsum(anomalous), np.cumsum(~anomalous))
    found = []
    for number, is_anomalous in zip(place.tolist(), anomalous.tolist(), strict=True):
        kind, account = list(VIOLATIONS)[number % len(VIOLATIONS)], None
        grammar, length = grammars[int(rng.integers(GRAMMARS))], int(rng.integers(LENGTHS[0], LENGTHS[1] + 1))
        while account is None:
            actions = grammar.session(length, rng)
            account = broken(grammar, actions, kind, rng)
        found.append(account if is_anomalous else Account.genuine(actions))
    return found


@dataclass(frozen=True)
class Habits:
    """What one user is like.

    Attributes:
        shares: float64 (VOCABULARY,), of the actions that the user takes one by one.
        favourites: float64 (PROCEDURES,), shares of the procedures.
        repeating: share of what the user does that is a procedure.
    """

    shares: NDArray[np.float64]
    favourites: NDArray[np.float64]
    repeating: float


def _history(user: Habits, procedures: Sequence[list[int]], length: int, rng: np.random.Generator) -> list[int]:
    """So many actions of a user, whose favourites drift."""

    def of_the_day() -> NDArray[np.float64]:
        return rng.dirichlet(user.favourites * DRIFT + 1e-3)

    found: list[int] = []
    today = of_the_day()
    while len(found) < length:
        if rng.random() < NEW_DAY:
            today = of_the_day()
        if rng.random() < user.repeating:
            procedure = procedures[int(rng.choice(PROCEDURES, p=today))]
            found += procedure[: int(rng.integers(2, len(procedure) + 1))]
        else:
            found.append(int(rng.choice(VOCABULARY, p=user.shares)))
    return found[:length]


def takeover(anomalous: NDArray[np.bool_], rng: np.random.Generator) -> list[Account]:
    """Histories of one user each; in those that are anomalous, the LAST actions are another user's."""
    everybody = rng.dirichlet(np.full(VOCABULARY, SHARES))
    procedures = [rng.permutation(VOCABULARY)[: rng.integers(4, LONGEST + 1)].tolist() for _ in range(PROCEDURES)]
    users = [
        Habits(
            rng.dirichlet(LIKE_ALL * everybody + 0.02),
            rng.dirichlet(np.full(PROCEDURES, FAVOURITES)),
            float(rng.uniform(*REPEATING)),
        )
        for _ in anomalous
    ]
    found = []
    for number, is_anomalous in enumerate(anomalous.tolist()):
        length, last = int(rng.integers(HISTORY[0], HISTORY[1] + 1)), LAST if is_anomalous else 0
        other = (number + 1 + int(rng.integers(len(users) - 1))) % len(users)
        taken = _history(users[number], procedures, length - last, rng)
        taken += _history(users[other], procedures, last, rng)
        label = (np.arange(length) >= length - last).astype(np.int8)
        found.append(Account([f"a{action:03d}" for action in taken], label, "takeover" if is_anomalous else None))
    return found


KINDS: dict[str, Callable[[NDArray[np.bool_], np.random.Generator], list[Account]]] = {
    "order": order,
    "takeover": takeover,
}


def actions(kind: str, accounts: int, seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """A log of so many accounts, at least 2: events (`sequence_id,action,event_label`), and labels with their types."""
    rng = np.random.default_rng(seed)
    anomalous = rng.permutation(accounts) < round(ANOMALOUS * accounts)
    made = KINDS[kind](anomalous, rng)
    ids = [f"{number:0{len(str(accounts))}d}" for number in range(accounts)]
    events = pl.DataFrame(
        {
            "sequence_id": np.repeat(ids, [len(one.actions) for one in made]),
            "action": [action for one in made for action in one.actions],
            "event_label": np.concatenate([one.event_label for one in made]),
        }
    )
    labels = {"sequence_id": ids, "label": anomalous.astype(np.int8), "type": [one.type for one in made]}
    return events, pl.DataFrame(labels, schema_overrides={"type": pl.String})


def write(out: Path, events: pl.DataFrame, labels: pl.DataFrame) -> None:
    """Writes `events.csv` and `labels.csv` into a folder, made if need be."""
    out.mkdir(parents=True, exist_ok=True)
    events.write_csv(out / "events.csv")
    labels.write_csv(out / "labels.csv")
