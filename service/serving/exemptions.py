"""Lets answers to accounts pass that a person has called genuine, while the evidence is what that person saw.

`model.exemption` has the rule, and `stores.exemptions` keeps who is exempt. Here is what one process knows of them, in
memory, so that no answer waits for the database. `feedback` reads them: at once after a verdict that was said here, and
every few seconds for those said elsewhere.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from service.model.exemption import Exemption
from service.schemas import messages
from service.schemas.terms import Decision
from service.stores.audit import Audit
from service.stores.exemptions import Stamp
from service.telemetry.logs import Pseudonyms
from service.telemetry.metrics import Metrics

Result = dict[str, Any]
WHOLE = {"strategy": "keep", "drop": [], "weight": 1.0}  # what a recommender may learn from a genuine account


def by_thresholds(result: Result) -> Decision:
    """The decision on a result before a person's verdict counted; that of a list for who is on one."""
    found: Decision = result["exempt"]["decision"] if "exempt" in result else result["decision"]
    return found


class Exemptions:
    """The exemptions that one process knows.

    Args:
        days: how long one holds; 0 if verdicts exempt nobody.
        pseudonyms: name accounts as the store does.
        audit: is told of exemptions before they are durable.
        metrics: shows how many are in force.

    Attributes:
        said: set when a verdict may have changed them.
    """

    def __init__(self, days: float, pseudonyms: Pseudonyms, audit: Audit, metrics: Metrics) -> None:
        self.days, self.pseudonyms, self.audit, self.metrics = days, pseudonyms, audit, metrics
        self.known: dict[tuple[str, str], list[Exemption]] = {}  # by account and version
        self.stamp: Stamp | None = None  # of those known
        self.said = asyncio.Event()

    def learn(self, stamp: Stamp, found: Sequence[Exemption] | None, version: str | None) -> None:
        """From now on knows these exemptions and no others; None if they have not changed.

        Args:
            stamp: of the exemptions in the store, no later than they were read.
            version: of the bundle that serves, the only one whose exemptions are in force.
        """
        if found is not None:
            self.known, self.stamp = {}, stamp
            for one in found:
                self.known.setdefault((one.account, one.version), []).append(one)
        now = time.time()
        hold = (of == version and any(now < one.until for one in each) for (_, of), each in self.known.items())
        self.metrics.exemptions.set(sum(hold))

    def applied(
        self, sequences: Sequence[messages.Sequence | Result], results: Sequence[Result], version: str
    ) -> list[Result]:
        """Results by the thresholds of a bundle version, with those allowed whose account is exempt.

        The operator's lists win: a person may have been mistaken for genuine before the operator knew better.
        """
        if not self.known:
            return list(results)
        return [
            self._one(sequence, result, version) if isinstance(sequence, messages.Sequence) else result
            for sequence, result in zip(sequences, results, strict=True)
        ]

    def _one(self, sequence: messages.Sequence, result: Result, version: str) -> Result:
        # only what is flagged costs a hash
        if result.get("decision", "allow") == "allow" or "listed" in result:
            return result
        mine = self.known.get((self.pseudonyms.of(sequence.user_id or sequence.id), version), ())
        now = time.time()
        hold = [one for one in mine if result["score"] <= one.most and now < one.until]
        if not hold:
            return result
        found = max(hold, key=lambda one: one.until)
        exempt = {**{n: result[n] for n in ("decision", "type")}, "since": found.since, "until": found.until}
        repaired = {"repair": WHOLE} if "repair" in result else {}
        return {**result, "decision": "allow", "type": None, "exempt": exempt, **repaired}
