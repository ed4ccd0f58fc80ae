"""Finds what a bundle names although hardly anybody holds it: values, pairs, numbers of a table, and accounts."""

import html
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from service.encoding.codewords import Codeword
from service.encoding.encoder import Encoded, Encoder
from service.encoding.fields import FIRST, Bins, Neighbourhood
from service.encoding.values import canonical
from service.encoding.vectors import as_text
from service.encoding.vocabulary import Vocabulary, key_of, spelling
from service.model.bundle import Bundle
from training.data.kinds import ROLES
from training.data.log import Log
from training.data.split import Indices
from training.data.vectors import rows
from training.fit.holders import rare_rows
from training.fit.sequences import encoded_log

EXAMPLES, MOST_SHOWN = 5, 60  # of what is named, and characters of one
PLAIN = re.compile(r"[-+.\deE]+")  # what may be any number
_SAID = re.compile(r"[^\s\"'`,;:()\[\]{}<>]+")  # a value within a sentence
Spell = Callable[[object], str]


def named(bundle: Bundle, log: Log, learned: Indices, least: int) -> list[dict[str, Any]]:
    """What the files of a bundle tell although fewer than `least` accounts hold it.

    Args:
        log: the log that it was fitted on.
        learned: positions of the sequences that it was fitted on.

    Returns:
        One row for each file and what it names: `file`, `what`, `count`, and some `examples`.
    """
    rare = rare_values(log, bundle.encoder, least)
    encoded = encoded_log(bundle.encoder, log.subset(learned))
    found = [*_of_encoder(bundle.encoder, rare), *_of_rows(bundle, encoded, least)]
    found += [*_of_crowd(bundle, encoded, rare, least), *_of_golden(bundle, rare), *_of_pages(bundle, log, rare)]
    return [_row(file, what, names) for file, what, names in found]


def _row(file: str, what: str, names: Sequence[str]) -> dict[str, Any]:
    examples = [one if len(one) <= MOST_SHOWN else f"{one[:MOST_SHOWN]}..." for one in sorted(names)[:EXAMPLES]]
    return {"file": file, "what": what, "count": len(names), "examples": examples}


def rare_values(log: Log, encoder: Encoder, least: int) -> dict[str, set[str]]:
    """The values of each column that fewer than `least` sequences of a log hold, as a vocabulary would spell them.

    Of vectors, as golden samples have them, and what they are called by their codewords.
    """
    spell, found = _spells(encoder), {}
    for name in log.events.columns:
        if name not in ROLES:
            held = log.events.select("sequence_id", pl.col(name).alias("value")).drop_nulls().unique()
            if name in encoder.reading.codebooks:
                owners, vectors = held["sequence_id"].to_list(), rows(held["value"])
                texts = [as_text(vector) for vector in vectors if vector is not None]
                kinds = zip(owners, encoder.reading.spelt(name, vectors), strict=True)
                spelt = {*zip(owners, texts, strict=True), *((owner, str(kind)) for owner, kind in kinds if kind)}
            else:
                known_as = spell.get(name, canonical)
                spelt = {(owner, known_as(value)) for owner, value in held.iter_rows()}
            holders = Counter(value for _, value in spelt)
            found[name] = {value for value, count in holders.items() if count < least}
    return found


def _spells(encoder: Encoder) -> dict[str, Spell]:
    """How the values of columns are spelt; of vectors, those of golden samples as they are."""
    return {f.name: f.known_as for f in encoder.vocabularies} | dict.fromkeys(encoder.reading.codebooks, str)


def _of_encoder(encoder: Encoder, rare: dict[str, set[str]]) -> Iterator[tuple[str, str, list[str]]]:
    """Values that the encoder's fields name."""
    values, starts, numbers = [], [], []
    for f in encoder.fields:
        if isinstance(f, Vocabulary):
            values += [f"{f.name} {value}" for value in f.values if value in rare.get(f.name, ())]
        elif isinstance(f, Neighbourhood):
            spelt = ((value, spelling(value, True)) for value in f.starts)
            starts += [f"{f.column} {value}" for value, text in spelt if text in rare.get(f.column, ())]
        elif isinstance(f, Bins):
            told = {canonical(number) for number in (*f.edges, *f.exact)}
            numbers += [f"{f.name} {number}" for number in told & rare.get(f.name, set())]
    yield "encoder.json", "values of vocabularies", values
    yield "encoder.json", "first values of a stretch of the catalogue", starts
    yield "encoder.json", "numbers at the edge of a bin", numbers


def _of_rows(bundle: Bundle, encoded: Sequence[Encoded], least: int) -> Iterator[tuple[str, str, list[str]]]:
    """Rows of the table that hardly anybody uses, and of which a file tells something."""
    encoder, tabular = bundle.encoder, bundle.tabular
    rare = rare_rows(encoded, encoder.rows, least)
    is_pair, is_piece, is_codeword, told = (np.zeros(encoder.rows, dtype=bool) for _ in range(4))
    for s in encoder.stretches:
        is_pair[s.start : s.end] = s.field.learned and not isinstance(s.field, Vocabulary)
        is_piece[s.start : s.end] = s.field.kind == "word"
        is_codeword[s.start : s.end] = isinstance(s.field, Codeword)
        if s.field.of == "event" or s.field.learned:
            rare[s.start : s.start + FIRST] = False  # unknown and missing are no values
        for row in bundle.manifest["field_values"].get(s.field.name, {"rows": []})["rows"]:
            told[s.start + row] = s.field.of == "event"

    def names(some: NDArray[np.bool_]) -> list[str]:
        return [encoder.describe(row) for row in np.flatnonzero(rare & some).tolist()]

    yield "encoder.json", "pairs of values", names(is_pair)
    if encoder.tokenizer is not None and json.loads(encoder.tokenizer.to_str())["model"]["type"] == "BPE":
        yield "tokenizer.json", "word pieces learned from the log", names(is_piece)
    if encoder.reading.codebooks:
        yield "codebooks.npz", "codewords of vectors", names(is_codeword)
    weighed = (tabular.linear.idf != 0) | (tabular.association.suspicion != 0)
    yield "statistics.npz", "values with a weight or a suspicion of their own", names(weighed)
    yield "ordinary.npz", "values with a share of their own", names(bundle.ordinary.share != 0)
    yield "manifest.json", "values that drift is watched by", names(told)


def _of_crowd(
    bundle: Bundle, encoded: Sequence[Encoded], rare: dict[str, set[str]], least: int
) -> Iterator[tuple[str, str, list[str]]]:
    """Identifiers whose keys stand in the file: whoever has a list of identifiers can look for theirs."""
    if bundle.usual is None:
        return
    holders: Counter[int] = Counter()
    for e in encoded:
        holders.update({*e.held.keys.tolist(), *e.held.sided[e.held.sided != 0].tolist()})
    spoken = {f.name: rare.get(f.name, set()) for f in bundle.encoder.vocabularies if f.identifier}
    texts = {key_of(name, text): f"{name} {text}" for name, values in spoken.items() for text in values}
    keys = [key for key in bundle.usual.keys.tolist() if 0 < holders[key] < least]
    yield "crowd.npz", "keys of identifiers", [texts.get(key, f"key {key:016x}") for key in keys]


def _of_golden(bundle: Bundle, rare: dict[str, set[str]]) -> Iterator[tuple[str, str, list[str]]]:
    """Values in the events of golden samples."""
    spell, found = _spells(bundle.encoder), set()
    for sample in bundle.golden():
        for event in sample["events"]:
            spelt = {name: spell.get(name, canonical)(value) for name, value in event.items()}
            found |= {f"{name} {text}" for name, text in spelt.items() if text in rare.get(name, ())}
    yield "golden.jsonl", "values of events", list(found)


def _of_pages(bundle: Bundle, log: Log, rare: dict[str, set[str]]) -> Iterator[tuple[str, str, list[str]]]:
    """Values and accounts in what is written for people; what looks like any number cannot be told there."""
    few = {text for values in rare.values() for text in values if not PLAIN.fullmatch(text)}
    evaluation = json.loads((bundle.path / "evaluation.json").read_text())
    shown = {row["sequence"] for rows in evaluation.get("strips", {}).values() for row in rows}
    shown |= {row["sequence"] for row in evaluation["suspects"]} | set(evaluation.get("sequences", ()))
    tags = re.compile(r"<(style|svg)\b.*?</\1>|<[^>]*>", re.S)
    page = [
        html.unescape(part).strip() for part in tags.sub("\0", (bundle.path / "report.html").read_text()).split("\0")
    ]
    ids = set(log.ids)
    for file, texts, accounts in (
        ("evaluation.json", list(_strings(evaluation)), ids & shown),
        ("manifest.json", list(_strings(bundle.manifest)), set()),
        ("report.html", page, ids & shown & set(page)),
    ):
        words = {*texts, *(word for text in texts for word in _SAID.findall(text))}
        yield file, "values", list(few & words)
        yield file, "accounts", list(accounts)


def _strings(content: Any) -> Iterable[str]:
    """All strings in what a JSON file holds, names of entries among them."""
    if isinstance(content, dict):
        for name, value in content.items():
            yield name
            yield from _strings(value)
    elif isinstance(content, list):
        for value in content:
            yield from _strings(value)
    elif isinstance(content, str):
        yield content
