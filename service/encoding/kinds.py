"""The fields that a bundle keeps, by the name of their kind."""

from service.encoding.change import Change
from service.encoding.codewords import Codeword
from service.encoding.fields import (
    Bins,
    Deviation,
    Gap,
    Hour,
    Neighbourhood,
    Popularity,
    Repeat,
    Rhythm,
    Step,
)
from service.encoding.habit import Habit
from service.encoding.pairs import Cross
from service.encoding.transition import Transition
from service.encoding.vocabulary import Vocabulary

KINDS: dict[str, type] = {
    kind.kind: kind
    for kind in (
        Vocabulary,
        Bins,
        Codeword,
        Gap,
        Rhythm,
        Hour,
        Repeat,
        Popularity,
        Deviation,
        Step,
        Neighbourhood,
        Change,
        Habit,
        Transition,
        Cross,
    )
}
