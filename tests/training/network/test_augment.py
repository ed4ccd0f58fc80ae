import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from service.encoding.chunks import pad
from service.encoding.encoder import EVENT, PAD, PIECE, Encoder
from service.encoding.pieces import Word
from service.encoding.reading import PLAIN
from training.config import pretrained_directory
from training.data.labels import UNLABELLED
from training.network.augment import Augment
from training.network.finetune import Example


@given(st.floats(0.05, 0.9), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_augmentation_keeps_every_value_in_its_field_and_hides_the_labels_of_what_it_drops(
    learned: tuple[Encoder, list[Example]], rate: float, seed: int
) -> None:
    encoder, examples = learned
    rng = np.random.default_rng(seed)
    ids = pad([examples[i].encoded.chunks[0] for i in rng.integers(0, len(examples), 4)])
    given_labels = np.ones(ids.shape[:2], dtype=np.int64)
    before = ids.copy()
    changed, labels = Augment(encoder, rate, torch.zeros(encoder.deep_rows, 4), rng)(ids, given_labels)
    assert (ids == before).all()
    assert (given_labels == 1).all()
    gone = (before[:, :, 0] == EVENT) & (changed[:, :, 0] == PAD)
    assert (labels == np.where(gone, UNLABELLED, 1)).all()
    kept = changed[:, :, 0] == EVENT
    assert (changed[:, 0] == before[:, 0]).all()  # [CLS] stays
    for f, slot, start, end in encoder.of("event"):
        if f.deep:
            values = changed[:, :, slot][kept]
            assert ((values >= start) & (values < end)).all()


def test_words_become_the_word_nearest_to_them() -> None:
    tokenizer = Tokenizer.from_file(f"{pretrained_directory(None)}/tokenizer.json")
    encoder = Encoder([], PLAIN, ["text"], tokenizer)
    pair = [tokenizer.token_to_id(w) for w in ("cheap", "free")]
    table = torch.randn(encoder.deep_rows, 16, generator=torch.Generator().manual_seed(0))
    [first] = [s.start for s in encoder.of("piece") if isinstance(s.field, Word)]
    table[first + pair[1]] = table[first + pair[0]] + 0.01
    augment = Augment(encoder, 0.5, table, np.random.default_rng(0))
    assert augment.synonym[first + pair[0]] == first + pair[1]
    ids = pad(encoder.encode({"text": [" ".join(["cheap"] * 40)]}, 1).chunks)
    changed, _ = augment(ids, np.zeros(ids.shape[:2], dtype=np.int64))
    words = changed[:, :, 1][changed[:, :, 0] == PIECE]
    assert set(words.tolist()) == {first + p for p in pair}
