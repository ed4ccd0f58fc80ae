"""Watches what accounts do together, as requests come in: the state of the crowd, kept in this process's memory.

Accounts are kept as hashes under a secret; of what they name, only hashes are kept too.
"""

import hashlib
import secrets
import time
from collections.abc import Sequence

import numpy as np

from service.encoding.held import Held, at_once
from service.model.crowd import Crowd, Limits
from service.model.scorer import Judged, Model
from service.model.togetherness import Together, Usual


class LiveCrowd:
    """The crowd as one process sees it; it outlives the models that ask about it.

    Args:
        limits: how much is kept.
        secret: under which accounts are hashed; one of its own if it is empty.

    Attributes:
        began: when it began to watch, by `time.monotonic`.
    """

    def __init__(self, limits: Limits, secret: str = "") -> None:
        self.state = Crowd(limits)
        self.began = time.monotonic()
        self._secret = hashlib.sha256(secret.encode() if secret else secrets.token_bytes(32)).digest()

    def look(self, usual: Usual, accounts: Sequence[str], held: Sequence[Held]) -> Together:
        """What other accounts have done, beside what sequences of these accounts hold."""
        found = []
        for account, one in zip(accounts, held, strict=True):
            shown = _timed(one)
            now = float(shown.ts[-1]) if len(shown.ts) else time.time()
            found.append(usual.read(self.state.look(self._number(account), shown, now), one.length))
        return Together.joined(found)

    def judge(self, model: Model, accounts: Sequence[str], judged: Sequence[Judged]) -> list[Judged]:
        """The same sequences of these accounts, judged beside the others; each alone if the model knows of no crowd."""
        if model.bundle.usual is None or not judged:
            return list(judged)
        return model.beside(judged, self.look(model.bundle.usual, accounts, [one.encoded.held for one in judged]))

    def enter(self, accounts: Sequence[str], held: Sequence[Held]) -> None:
        """Takes in what accounts did; what they did before counts once."""
        for account, one in zip(accounts, held, strict=True):
            self.state.enter(self._number(account), _timed(one))

    def forget(self, account: str) -> bool:
        """Forgets an account, and says whether there was anything to forget."""
        return self.state.forget(self._number(account))

    def _number(self, account: str) -> int:
        digest = hashlib.blake2b(account.encode(), digest_size=8, key=self._secret)
        return int.from_bytes(digest.digest(), "little", signed=True)


def _timed(held: Held) -> Held:
    """The same, all of it now if not every time is told."""
    return at_once(held, time.time()) if np.isnan(held.ts).any() else held
