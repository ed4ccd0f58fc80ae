"""Sites in threads and the server between them, without a network."""

import threading
from collections.abc import Callable
from queue import Queue
from typing import Any

from training.distributed.federation import Meeting, Site
from training.sites import joined

KEY = b"a secret of the sites"
Work = Callable[[Site], Any]


def met(works: dict[str, Work], keys: dict[str, bytes] | None = None) -> tuple[dict[str, Any], list[bytes]]:
    """What each site's work gives, or the error it ends with, and all messages that the server saw."""
    sent: dict[str, Queue[bytes | None]] = {name: Queue() for name in works}
    answers: dict[str, Queue[bytes]] = {name: Queue() for name in works}
    found: dict[str, Any] = {}
    seen: list[bytes] = []

    def at(name: str) -> None:
        def exchange(message: bytes) -> bytes:
            sent[name].put(message)
            return answers[name].get(timeout=30)

        try:
            found[name] = works[name](Site(name, (keys or {}).get(name, KEY), exchange))
        except Exception as error:  # it is what the test looks at
            found[name] = error
        sent[name].put(None)

    threads = [threading.Thread(target=at, args=(name,)) for name in works]
    for thread in threads:
        thread.start()
    meeting, open_ = Meeting(list(works)), set(works)
    while open_:
        told = {name: sent[name].get(timeout=30) for name in sorted(open_)}
        open_ -= {name for name, message in told.items() if message is None}
        seen += [message for message in told.values() if message]
        if not any(told.values()):
            break
        for name, answer in meeting.answers(told).items():
            answers[name].put(answer)
    for thread in threads:
        thread.join()
    return found, seen


def each(works: dict[str, Callable[[], Any]]) -> dict[str, Any]:
    """What each of several sites gets, whose fit is a function that knows nothing of them; raises what it raises."""

    def at(work: Callable[[], Any]) -> Work:
        def fit(site: Site) -> Any:
            with joined(site):
                return work()

        return fit

    found, _ = met({name: at(work) for name, work in works.items()})
    for given in found.values():
        if isinstance(given, Exception):
            raise given
    return found
