"""Watches what accounts do together, as requests come in: the state of the crowd, kept in this process's memory.

Accounts are kept as hashes under a secret; of what they name, only hashes are kept too. `crowd_sharing` shares it.
"""

import hashlib
import secrets
import time
from collections.abc import Callable, Sequence

import numpy as np
from cachetools import TTLCache

from service.encoding.held import Held, at_once
from service.model.crowd import Crowd
from service.model.looks import Limits, News
from service.model.togetherness import Together, Usual
from service.serving.crowd_records import pack, unpack
from service.settings import Settings

AGAIN_SECONDS, AGAIN_BYTES = 60.0, 8 << 20  # for how long a request may be sent again, and what such requests may hold


class LiveCrowd:
    """The crowd as one process sees it; it outlives the models that ask about it.

    Args:
        limits: how much is kept.
        secret: under which accounts are hashed; one of its own if it is empty.

    Attributes:
        began: when it began to watch, by `time.monotonic`.
        young: whether so little is known yet that nobody should be judged beside it.
        changed: whether anything has entered since whoever sets it back last looked.
        tell: hears what accounts did that is new, so that it can be shared.
        before: what was known before the latest requests of several accounts, by `request`. One that is sent again is
            told the same, or its accounts would see each other, who entered by it.
    """

    def __init__(self, limits: Limits, secret: str = "") -> None:
        self.state = Crowd(limits, watches=True)
        self.began = time.monotonic()
        self.young = self.changed = False
        self.tell: Callable[[Sequence[News]], None] | None = None
        self.before: TTLCache[bytes, Together] = TTLCache(AGAIN_BYTES, AGAIN_SECONDS, getsizeof=lambda told: told.size)
        self._secret = hashlib.sha256(secret.encode() if secret else secrets.token_bytes(32)).digest()

    def look(self, usual: Usual, accounts: Sequence[str], held: Sequence[Held]) -> Together:
        """What other accounts have done, beside what sequences of these accounts hold."""
        found = []
        for account, one in zip(accounts, held, strict=True):
            shown = _timed(one)
            now = float(shown.ts[-1]) if len(shown.ts) else time.time()
            found.append(usual.read(self.state.look(self.number(account), shown, now), one.length))
        return Together.joined(found)

    def request(self, version: str, accounts: Sequence[str], held: Sequence[Held]) -> bytes | None:
        """What stands for a request to a bundle's version, the same when it is sent again; None for one account's."""
        if len(set(accounts)) < 2:
            return None
        digest = hashlib.blake2b(version.encode(), digest_size=16, key=self._secret, person=b"request")
        for account, one in zip(accounts, held, strict=True):
            digest.update(np.array((self.number(account), one.length, len(one.keys))).tobytes())
            digest.update(b"".join(part.tobytes() for part in (one.keys, one.sided, one.ts, one.event)))
        return digest.digest()

    def enter(self, accounts: Sequence[str], held: Sequence[Held]) -> None:
        """Takes in what accounts did; what they did before counts once."""
        pairs = zip(accounts, held, strict=True)
        news = [one for a, h in pairs if (one := self.state.enter(self.number(a), _timed(h))) is not None]
        self.changed |= bool(news)
        if news and self.tell:
            self.tell(news)

    def forget(self, account: str) -> bool:
        """Forgets an account, and says whether there was anything to forget."""
        number = self.number(account)
        self.before.clear()
        self.changed = True  # campaigns are of those who are left
        if self.tell:
            self.tell([News(number, 0.0, 0, None)])
        return self.state.forget(number)

    def pack(self, news: Sequence[News]) -> bytes:
        """What accounts did, as another process with the same secret hears it."""
        return pack(news, self._secret)

    def hear(self, record: bytes) -> None:
        """Takes in what another process has packed; raises ValueError if that is damaged or of another secret."""
        for one in unpack(record, self._secret):
            self.changed = True
            if one.held is None:
                self.state.forget(one.account)
            else:
                self.state.enter(one.account, one.held, one.first, one.before)

    def number(self, account: str) -> int:
        """The number that stands for an account."""
        digest = hashlib.blake2b(account.encode(), digest_size=8, key=self._secret)
        return int.from_bytes(digest.digest(), "little", signed=True)


def limits_of(settings: Settings) -> Limits:
    """How much of the crowd the settings keep."""
    return Limits(accounts=settings.crowd_accounts, values=settings.crowd_values)


def _timed(held: Held) -> Held:
    """The same, all of it now if not every time is told."""
    return at_once(held, time.time()) if np.isnan(held.ts).any() else held
