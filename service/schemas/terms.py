"""The few words that the service, its API and its metrics share."""

from typing import Literal, get_args

Decision = Literal["allow", "review", "block"]
DECISIONS: tuple[Decision, ...] = get_args(Decision)
Arrival = Literal["new", "out_of_order", "duplicate", "late"]  # how an event arrived at the window of its key
ARRIVALS: tuple[Arrival, ...] = get_args(Arrival)
Order = Literal["teaching", "newest", "score"]  # of what waits for a verdict
SCORE, EVENTS = "/v1/score", "/v1/events"  # the routes that score
WARM = "/v1/events/warm"  # takes in events without scoring
