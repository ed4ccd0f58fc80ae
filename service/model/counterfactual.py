"""Finds the fewest events without which a decision would be another, greedily; each answer is a verified one.

It takes out the events that are blamed most until the decision changes, then puts back those that were not needed, in
groups that get smaller, as in Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input", IEEE
Transactions on Software Engineering 2002. What is tried at one time is asked together, so that it can run as one batch.
"""

from collections.abc import Generator, Sequence

MOST_TRIED = 64  # ways to shorten a sequence
AT_ONCE = 16  # of them, asked together

Asked = list[list[int]]  # events to take out, for each way
Search = Generator[Asked, list[bool], list[int] | None]


def fewest(blamed: Sequence[int]) -> Search:
    """Asks whether the decision is another without some events; returns those to take out, or None.

    Args:
        blamed: all events of a sequence, those to blame most first. One at least stays.
    """
    left = MOST_TRIED
    low, found = 0, None  # so many of the first are not enough, and so many are
    high = len(blamed)
    while high - low > 1 and left > MOST_TRIED // 2:
        sizes = _between(low, high, AT_ONCE, found is None)
        changes = yield [list(blamed[:k]) for k in sizes]
        left -= len(sizes)
        enough = next((k for k, changed in zip(sizes, changes, strict=True) if changed), None)
        if enough is None and found is None:
            return None
        low = max((k for k in sizes if enough is None or k < enough), default=low)
        if enough is not None:
            high = found = enough
    if found is None:
        return None
    return (yield from _pruned(list(blamed[:found]), left))


def _between(low: int, high: int, most: int, first: bool) -> list[int]:
    """Whole numbers between two, ascending, at most so many: all, or at first ever farther apart, then even."""
    if high - low - 1 <= most:
        return list(range(low + 1, high))
    steps = [k / (most - 1) if most > 1 else 1.0 for k in range(most)]
    span = high - low - 2
    return sorted({low + 1 + round((span + 1) ** step - 1 if first else span * step) for step in steps})


def _pruned(out: list[int], left: int) -> Generator[Asked, list[bool], list[int]]:
    """The events of `out` that are needed, found in `left` ways at most."""
    size = min(-(-len(out) // AT_ONCE), len(out) // 2)  # one event at least is needed
    while size and left:
        ends = range(len(out), 0, -size)  # least blamed first
        groups = [out[max(end - size, 0) : end] for end in ends][: min(AT_ONCE, left)]
        changes = yield [_without(out, group) for group in groups]
        left -= len(groups)
        needless = [group for group, changed in zip(groups, changes, strict=True) if changed]
        if not needless:
            size //= 2
            continue
        together = [_without(out, *needless[: k + 1]) for k in range(1, len(needless))]
        together = [some for some in together if some][:left]
        changes = (yield together) if together else []
        left -= len(together)
        enough = [some for some, changed in zip(together, changes, strict=True) if changed]
        out = min([_without(out, needless[0]), *enough], key=len)
        size = min(size, len(out) // 2)
    return out


def _without(events: Sequence[int], *groups: Sequence[int]) -> list[int]:
    gone = {event for group in groups for event in group}
    return [event for event in events if event not in gone]
