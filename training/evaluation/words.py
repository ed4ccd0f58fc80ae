"""Figures and values in plain words, for readers who do not know the terms of the field."""

import re
from collections.abc import Sequence


def whole_number(share: float, of: int) -> int:
    """How many of so many a share is; neither none nor all where it is not exactly that."""
    near = int(share * of + 0.5)
    return min(max(near, 1), of - 1) if 0 < share < 1 else near


def hundred(share: float) -> int:
    """How many of a hundred a share is."""
    return whole_number(share, 100)


def told(found: Sequence[float], of: int) -> str:
    """A share with its 95 % interval as whole numbers: "96 (86 to 99)"."""
    return f"{whole_number(found[0], of):,} ({ends(found, of)})"


def ends(found: Sequence[float], of: int) -> str:
    """The ends of a share's interval as whole numbers: "86 to 99"."""
    return " to ".join(f"{int(end * of + 0.5):,}" for end in found[1:3])


def kind_in_words(kind: str) -> str:
    """The name of a type of attack, as one would write it."""
    return kind.replace("_", " ")


def in_words(cut: str) -> str:
    """What is known of an account in a cut of `promise.by_cut`."""
    if cut.startswith("without "):
        return f"all {cut}"
    if found := re.fullmatch(r"(first|latest) (\d+)", cut):
        return f"the {found[1]} {found[2]} events" if found[2] != "1" else f"the {found[1]} event"
    return {"whole": "the whole history", "whole, beside the crowd": "the whole, and others"}.get(cut, f"the {cut}")


def brief(value: str, most: int = 60) -> str:
    """A value of a log as a page shows it: at most so many letters, `?` for each that cannot be printed."""
    printed = "".join(letter if letter.isprintable() else "?" for letter in value[: most + 1])
    return printed if len(printed) <= most else f"{printed[: most - 1]}…"
