import polars as pl
import pytest

from training.data.log import Log
from training.fit.pieces import UNKNOWN, learned, tokenizer_for

ENGLISH = [f"a good {k} lamp for the house, and blue" for k in range(40)]
CHINESE = [f"这件衣服很合身{a}颜色也好看{b}" for a in "春秋雪海" for b in "鱼花山水云江星月冬湖"]
THAI = [f"สินค้าดีมาก{a}ส่งเร็วแพ็คของดี{b}" for a in ("ครับ", "ค่ะ") for b in ("จะซื้ออีก", "ประทับใจ")] * 10


def of(texts: list[str]) -> Log:
    ids = [f"u{k}" for k in range(len(texts))]
    return Log.of(pl.DataFrame({"sequence_id": ids, "text": texts, "ts": None}))


def test_a_log_in_english_is_cut_by_the_pretrained_tokenizer() -> None:
    tokenizer = tokenizer_for(of(ENGLISH), None)
    assert tokenizer is not None
    assert tokenizer.get_vocab_size() == 30_522
    assert tokenizer_for(Log.of(pl.DataFrame({"sequence_id": ["a"], "action": ["x"], "ts": None})), None) is None


@pytest.mark.parametrize("texts", [CHINESE, THAI])
def test_pieces_of_other_scripts_are_learned_and_none_of_them_is_unknown(texts: list[str]) -> None:
    tokenizer = tokenizer_for(of(texts), None)
    assert tokenizer is not None
    pieces = [piece for text in texts for piece in tokenizer.encode(text).tokens]
    assert UNKNOWN not in pieces
    assert len(set(pieces)) > 5
    assert 2 * len(texts) < len(pieces)
    assert tokenizer.to_str() == learned(texts).to_str(), "learned twice, it is the same"
