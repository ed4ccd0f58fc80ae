"""What few accounts hold is left out of a bundle, where it is asked to be anonymous: no part of a model learns of it.

After k-anonymity (Sweeney, "k-anonymity: a model for protecting privacy", IJUFKS 2002), for each value, pair of values
and number of a table by itself. Vocabularies and pairs name nothing rarer (`encoder`, `pieces`); the rest is here.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from service.encoding.encoder import MASK, PAD, Encoded
from service.encoding.usage import Usage


def rare_rows(sequences: Sequence[Encoded], rows: int, least: int) -> NDArray[np.bool_]:
    """Bool (rows,): those rows of the table that some of the whole sequences use, but fewer than `least`."""
    holders = np.bincount(Usage.of(sequences).rows, minlength=rows)
    return np.asarray((holders > 0) & (holders < least))


def blanked(sequences: Sequence[Encoded], rows: NDArray[np.bool_]) -> list[Encoded]:
    """The sequences as if they told nothing where they use one of the given rows, bool (rows,)."""
    lookup = np.where(rows & (np.arange(len(rows)) > MASK), PAD, np.arange(len(rows))).astype(np.int32)
    return [replace(e, rows=lookup[e.rows], chunks=[lookup[chunk] for chunk in e.chunks]) for e in sequences]
