"""The words of reasons, all in this file: sentences with places for what was seen, and how numbers are said.

A sentence names first what was seen and then what is usual, which means among genuine histories of training. Another
language needs another file like this one.
"""

from collections.abc import Callable, Sequence

MOST_LISTED = 3  # values that a sentence names one by one
LEAST_SHARE = 0.0005  # a share below it is next to none
_UNITS = ((1.0, "s"), (60.0, "min"), (3600.0, "h"), (86_400.0, "days"))

NETWORK = "events in their order"
FOREIGN = "another account's"
ASSOCIATION = "company"  # as callers know guilt by association
NOVELTY = "distance from normal"
HABIT = "habit"
CROWD = "crowd"
REST = "rest"
REST_VALUE = "all else together"
AS_READ = "as the network reads them"
DO_NOT_BELONG = "events that do not belong to this account"
OTHERS_WITH_SAME = "how they look who hold the same values"
TIMES_NORMAL = "{times:.1f} times a normal sequence's"
RARITY = {True: "values rarer than usual", False: "values commoner than usual"}
VARIETY = {True: "more varied than usual", False: "less varied than usual"}
PAST = {True: "like the account's own past: {what}", False: "unlike the account's own past: {what}"}

# what speaks for a genuine user is told as what was seen, and with this behind it
GENUINE = "{text}; this speaks for a genuine user"
USUAL = "{text}; usual is {usual}"

TEXTS = {
    # values of a field
    "value": "{field} {value} in {count} of {all} events",
    "missing": "{field} is missing in {count} of {all} events",
    "unknown": "{field} has values in {count} of {all} events that training did not hold",
    "known": "{field} {values} in {count} of {all} events: held more by anomalous histories than by others",
    "known_genuine": "{field} {values} in {count} of {all} events: held more by genuine histories than by others",
    "alike": "{field} of {value}, alike in that part, in {count} of {all} events",
    "mixed": "{what}: nothing stands out by itself, but together it is more like that of anomalous histories",
    "mixed_genuine": "{what}: nothing stands out",
    "after": "{field} {values}, one after another, in {count} of {all} events",
    # ranges of ordered values
    "held": "{count} of {all} events have {field} values that {value} accounts of training had",
    "deviation": "{count} of {all} events: {field} {value} standard deviations from its {by}'s mean",
    "hours": "{count} of {all} events between {start:02d}:00 and {end:02d}:00 UTC",
    "step": "{count} of {all} steps through the catalogue of {field}: {value}",
    # how much is of one value
    "leader": "{count} of {all} events on one {field}, {value}",
    "spread": "{count} different values of {field} in {all} events",
    "repeat": "{count} of {all} events repeat the {field} of the event before",
    "repeat_within": "{count} of {all} events repeat the {field} of one of the {ago} events before",
    "first": "{count} of {all} events name a new {field}",
    # time
    "pace": "{all} events in {span}, {pause} between two (median); genuine users here leave {usual}",
    "pace_none": "the times of the events",
    "pace_alone": "{all} events in {span}, {pause} between two (median)",
    "pause": "{events} events in {span}: {count} of {all} pauses are {value}",
    "even": "{count} of {all} pauses are as long as the one before, within {percent:.0f} %",
    "uneven": "{count} of {all} pauses are more than {factor:.1f} times as long or as short as the one before",
    "uneven_between": "{count} of {all} pauses differ from the one before by a factor of {factor:.2g} to {high:.2g}",
    # order
    "surprising": "{count} of {all} events hardly ever follow the two before them",
    "expected": "{count} of {all} events follow the two before them as they mostly do",
    # who acts
    "change": "somebody else seems to act in {count} of {all} events ({likely} likely)",
    "no_change": "no sign that somebody else took over",
    "never": "{field} {values} in {count} of the latest {all} events, never before in this account",
    "own": "{field} {value} in {count} of the latest {all} events; before, in {past} of this account's events",
    "unlike": "the latest {all} events are unlike this account's own past",
    "like": "the latest {all} events are like this account's own past",
    # texts
    "word": "the words {values}{where}",
    "words_known": "the words {values}{where}: more in anomalous histories than in others",
    "words_genuine": "the words {values}{where}: more in genuine histories than in others",
    "shape": "{count} of {all} words and signs are {value}",
    # the whole
    "length": "how many events there are: {all}",
    "network": "the network finds the events and their order like those of an anomalous history",
    "network_genuine": "the network finds the events and their order like those of a genuine history",
    "foreign": "the network takes {count} of {all} events for those of another account",
    "foreign_all": "the network takes no event for this account's own",
    "foreign_some": "the network is less sure than usual that all events are of one account",
    "foreign_genuine": "the network finds all events to be of one account",
    "company": "accounts that had the same {field} {values} look anomalous",
    "company_genuine": "accounts that had the same {field} {values} look genuine",
    "company_words": "texts with the same words {values} look anomalous",
    "company_words_genuine": "texts with the same words {values} look genuine",
    "distance": "{times} times as far from genuine users as these are from one another, most of all by {values}",
    "near": "as near to genuine users as these are to one another",
    "surge": "{what} named by {count} other {who} {within}; usual are {usual}",
    "breadth": "{times:.1f} deviations more accounts than usual name the same at this time, many values at once",
    "copy": "{share} of it is the same, beyond chance, as in another account's history",
    "lockstep": "{share} of it is in the same order, beyond chance, as in another account's history",
    "rest": "all else: how common anomalies are, and smaller reasons ({count})",
}
TOPICS = {  # what is unusual, by kind of topic
    "values": "its {field}",
    "vector": "what its {field} is like",
    "content": "which values of {field} it has",
    "spread": "how much it repeats {field}",
    "step": "its steps through the catalogue of {field}",
    "deviation": "how far {field} lies from the mean",
    "pace": "its pace",
    "rhythm": "its rhythm",
    "hours": "its hours",
    "change": "a change of hands",
    "habit": "its own habits",
    "order": "the order of {field}",
    "words": "the words of its texts",
    "shape": "how its words are written",
}
STEPS = {  # how a step through a catalogue is said
    "far back": "far back",
    "same": "the same again",
    "far on": "far ahead",
}
SHAPES = {  # how words are written
    "lower case": "in lower case",
    "Capitalised": "capitalised",
    "UPPER CASE": "in capitals",
    "digits": "digits",
    "other": "signs",
}
WHERE = " in {count} of {all} events"  # left out where there is only one
QUOTED = "“{word}”"
WITHIN = {"an hour": "within an hour", "a day": "within a day", "a week": "within a week", "all": "in all"}
WHO = {True: "new accounts", False: "older accounts"}
ACCOUNTS = "accounts"  # where nobody knows which are new
THEN = ", then "
AND_MORE = "{listed} and {count} more"


def share(p: float) -> str:
    """A share: 21 %, 1 in 40, next to none."""
    if p >= 0.05:
        return f"{100 * p if p >= 0.9995 else min(100 * p, 99):.0f} %"
    return f"1 in {_round(1 / p):,}" if p >= LEAST_SHARE else "next to none"


def seconds(s: float) -> str:
    """A time: 0.3 s, 35 s, 12 min, 5 h, 9 days."""
    size, unit = next(((u, n) for u, n in reversed(_UNITS) if s >= 1.5 * u), _UNITS[0])
    return f"{number(s / size)} {unit}"


def number(x: float) -> str:
    """A number in two digits, or all those before the point."""
    return f"{x:,.0f}" if abs(x) >= 10 else f"{x:.2g}"


def within(low: float | None, high: float | None, say: Callable[[float], str]) -> str:
    """A range of numbers: under 4, 80 or more, 4 to 12, or 10 where both ends are said so; None where it has no end."""
    if low is None:
        return "any" if high is None else f"under {say(high)}"
    if high is None:
        return f"{say(low)} or more"
    return say(low) if say(low) == say(high) else f"{say(low)} to {say(high)}"


def signed(x: float) -> str:
    """A number with its sign."""
    return f"{x:+g}"


def listed(values: Sequence[str]) -> str:
    """The first values, and how many more there are."""
    told = ", ".join(values[:MOST_LISTED])
    more = len(values) - MOST_LISTED
    return AND_MORE.format(listed=told, count=more) if more > 0 else told


def one_after_another(values: Sequence[str]) -> str:
    """Values in the order in which they came."""
    return THEN.join(values)


def _round(x: float) -> int:
    return int(float(f"{x:.2g}"))
