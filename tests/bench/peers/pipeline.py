"""What every peer runs behind its own HTTP server: our encoder, graph and judgement, on lists of sequences.

So the peers differ from the service in how they take requests in, batch them and answer, and in nothing else.
"""

import os
from pathlib import Path
from typing import Any

from service.encoding.columns import columns_of
from service.engine.session import Runtime
from service.model.bundle import Bundle
from service.model.scorer import Model, Score

MODEL = Model.load(
    Bundle.open(Path(os.environ["RECGUARD_BUNDLE"])), Runtime("auto", int(os.environ.get("RECGUARD_THREADS", 1)))
)


def answers(requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The bodies of the answers to the bodies of requests as `POST /v1/score` takes them."""
    sequences = [sequence for request in requests for sequence in request["sequences"]]
    found = iter(MODEL.scores(columns_of(sequence["events"]) for sequence in sequences))
    return [{"results": [_result(s["id"], next(found)) for s in request["sequences"]]} for request in requests]


def _result(sequence_id: str, score: Any) -> dict[str, Any]:
    if not isinstance(score, Score):
        raise score
    decision = MODEL.bundle.thresholds.decide(score.score, score.false_alarm_rate)
    return {
        "id": sequence_id,
        "score": round(score.score, 6),
        "decision": decision,
        "type": score.type_if(decision),
        "events": [{"score": s} for s in score.events.round(6).tolist()],
    }
