"""The tokenizer that cuts texts into pieces: that of pretrained weights, or one learned from the log."""

import json
import logging
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from service.encoding.encoder import Encoder
from service.encoding.events import joined_texts
from training.config import pretrained_directory
from training.data.kinds import TEXT
from training.data.log import Log
from training.fit.bins import SEVERAL

logger = logging.getLogger(__name__)
UNKNOWN = "[UNK]"
MOST_UNKNOWN = 0.1  # share of a text's pieces that a tokenizer may not know
LOOKED_AT = 2_000  # texts from which that share is found
PIECES = 8_000  # of a vocabulary that is learned


def tokenizer_for(
    log: Log, pretrained: str | None, old: Encoder | None = None, least: int = SEVERAL
) -> Tokenizer | None:
    """The tokenizer for a log's texts; None for a log without text.

    Args:
        pretrained: directory or hub id of BERT weights, see `pretrained_directory`.
        old: an encoder whose tokenizer is kept.
        least: fewest sequences whose texts a learned piece is in.
    """
    columns = [name for name, kind in log.kinds.items() if kind == TEXT]
    if not columns:
        return None
    if old is not None and old.tokenizer is not None:
        return old.tokenizer
    tokenizer = pretrained_tokenizer(pretrained)
    texts = [text for text in joined_texts(log.whole[0], log.events.height, columns, log.reading) if text]
    some = texts[:: -(-len(texts) // LOOKED_AT) or 1]
    pieces = [p for found in tokenizer.encode_batch(some, add_special_tokens=False) for p in found.tokens]
    share = pieces.count(UNKNOWN) / max(len(pieces), 1)
    if share <= MOST_UNKNOWN:
        return tokenizer
    logger.info("%.0f%% of the text's pieces are in no vocabulary at hand, so one is learned from the log", 100 * share)
    found = learned(texts)
    return found if least <= SEVERAL else common(found, _by_sequence(log, columns), least)


def pretrained_tokenizer(pretrained: str | None) -> Tokenizer:
    """The tokenizer of BERT weights, in a directory or hub id as for `pretrained_directory`; it cuts no text short."""
    tokenizer = Tokenizer.from_file(str(Path(pretrained_directory(pretrained)) / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _by_sequence(log: Log, columns: list[str]) -> Iterable[list[str]]:
    for given, length in log.sequences():
        yield joined_texts(given, length, columns, log.reading)


def learned(texts: list[str]) -> Tokenizer:
    """A tokenizer of the pieces that a log's texts are made of, also where nothing is between words.

    By byte-pair encoding (Sennrich et al., ACL 2016). Unlike BERT's own, it keeps accents, which in Thai are vowels.
    """
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.BpeTrainer(
        vocab_size=PIECES, min_frequency=2, special_tokens=[UNKNOWN], show_progress=False, max_token_length=16
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def common(tokenizer: Tokenizer, texts: Iterable[list[str]], least: int) -> Tokenizer:
    """A learned tokenizer without the pieces that the texts of fewer than `least` sequences are cut into.

    Pieces of which a common one is made are common too, and stay.

    Args:
        texts: those of each sequence.
    """
    holders: Counter[str] = Counter()
    for own in texts:
        holders.update({p for e in tokenizer.encode_batch(own, add_special_tokens=False) for p in e.tokens})
    written = json.loads(tokenizer.to_str())
    kept = {UNKNOWN, *(piece for piece, count in holders.items() if count >= least)}
    merges = []
    for left, right in reversed(written["model"]["merges"]):  # what a piece is made of was there before it
        if left + right in kept:
            merges.append((left, right))
            kept |= {left, right}
    pieces = [piece for piece in written["model"]["vocab"] if piece in kept]
    written["model"]["vocab"] = {piece: i for i, piece in enumerate(pieces)}
    written["model"]["merges"] = merges[::-1]
    return Tokenizer.from_str(json.dumps(written))
