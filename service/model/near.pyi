from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.encoding.held import Keys

BINS: Final[int]
MARKS: Final[int]
POSTINGS: Final[int]
EARLIEST: Final[int]
COMPARED: Final[int]
EMPTY: Final[np.uint64]

def sketch(tokens: Keys) -> tuple[Keys, NDArray[np.int64]]: ...
def mixed(keys: Keys) -> Keys: ...

class Sketch:
    @property
    def bins(self) -> Keys: ...
    def marks(self) -> list[int]: ...

class Posted:
    def __len__(self) -> int: ...
    def __getitem__(self, at: int) -> int: ...

class Near:
    sketches: dict[int, Sketch]
    holders: dict[int, Posted]
    def put(self, account: int, of: Keys) -> None: ...
    def drop(self, account: int) -> None: ...
    def like(self, account: int) -> list[int]: ...
