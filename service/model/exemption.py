"""How far a person's verdict holds that a flagged account is genuine.

It holds while the evidence is what that person saw: as long as the odds that the account is anomalous are at most ODDS
times those of the answer that was judged. An attacker who was once taken for genuine may go on as before, and is
flagged for anything that looks clearly worse. The rule goes by odds and not by the false-alarm rate, since a bundle can
tell no rate below that of its worst accounts, and nothing would be worse than these. Scores of two bundles do not
compare, so a verdict holds for the version that gave the answer.
"""

from dataclasses import dataclass

ODDS = 5.0
DIGITS = 6  # of a score in an answer


@dataclass(frozen=True)
class Exemption:
    """What one verdict gives an account that a person has called genuine.

    Attributes:
        account: a pseudonym, as in the store.
        version: of the bundle whose answer was judged, the only one that it holds for.
        score_id: that answer.
        most: the highest score that is still allowed.
        since, until: epoch seconds.
    """

    account: str
    version: str
    score_id: str
    most: float
    since: float
    until: float


def most_allowed(score: float) -> float | None:
    """The highest score that is allowed after a verdict on an answer with `score`, of DIGITS digits.

    None if that is 1: no answer could then be told from the one that was judged, and all would be allowed.
    """
    odds = ODDS * score / (1 - score) if score < 1 else float("inf")
    most = round(1 - 1 / (1 + odds), DIGITS)
    return most if most < 1 else None
