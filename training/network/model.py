"""The network: BERT over bags of table rows.

    ids (B, P, S) -> sum of S embeddings (B, P, H) -> BERT -> states (B, P, H)
      event_logits (B, P)    a linear reading of each event's own state
      sequence_logit (B,)    attention over event_logits, plus a reading of the whole chunk
      type_logits (B, K)     which anomaly it would be
      foreign_logits (B, P)  whether each event is another account's

Attention over event logits is additive multiple-instance learning (Javed et al., "Additive MIL", NeurIPS 2022): an
event's part in the sequence's score can be read off, and event scores are learned even where only sequences carry
labels.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import transformers
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from service.encoding.encoder import CLS, EVENT, PAD, PIECE, Encoder
from service.encoding.fields import FIRST, Neighbourhood
from service.encoding.pieces import Word
from service.encoding.vocabulary import Vocabulary
from training.config import Preset


class Logits(NamedTuple):
    """The graph's outputs, in their order."""

    sequence_logit: Tensor  # (B,)
    type_logits: Tensor  # (B, K)
    event_logits: Tensor  # (B, P)
    foreign_logits: Tensor  # (B, P)


class BehaviourBert(nn.Module):
    """BERT encoder over behaviour, with its heads.

    Args:
        rows: rows of the embedding table, `Encoder.deep_rows`.
        types: anomaly types, K >= 1.
        preset: shape of the encoder.
        positions: longest chunk.
    """

    center: Tensor
    scale: Tensor

    def __init__(self, rows: int, types: int, preset: Preset, positions: int, dropout: float = 0.1) -> None:
        super().__init__()
        hidden = preset.hidden
        config = BertConfig(
            vocab_size=rows,
            hidden_size=hidden,
            num_hidden_layers=preset.layers,
            num_attention_heads=preset.heads,
            intermediate_size=4 * hidden,
            max_position_embeddings=positions,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
        )
        self.bert = BertModel(config, add_pooling_layer=False)
        self.dropout = nn.Dropout(dropout)
        self.event_head = nn.Linear(hidden, 1)
        self.foreign_head = nn.Linear(hidden, 1)
        self.attention_head = nn.Linear(hidden, 1)
        self.window_head = nn.Sequential(
            nn.Linear(2 * hidden, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, 1)
        )
        self.type_head = nn.Linear(2 * hidden, types)
        self.register_buffer("center", torch.zeros(hidden))  # mean of the states at the start, see center_states
        self.register_buffer("scale", torch.ones(hidden))  # their standard deviation

    @property
    def table(self) -> nn.Embedding:
        """The one embedding table, (rows, H)."""
        return self.bert.embeddings.word_embeddings

    def bags(self, ids: Tensor) -> Tensor:
        """What the encoder reads: each position's summed embeddings, (B, P, S) -> (B, P, H)."""
        bags: Tensor = self.table(ids).sum(dim=2)
        return bags

    def states(self, ids: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The encoder's states (B, P, H), and which positions are not padding (B, P); noise is added to the bags."""
        real = ids[:, :, 0] != PAD
        bags = self.bags(ids) if noise is None else self.bags(ids) + noise
        states = self.bert(inputs_embeds=bags, attention_mask=real.long()).last_hidden_state.to(self.center.dtype)
        return (states - self.center) / self.scale, real

    @torch.no_grad()
    def center_states(self, ids: Tensor) -> None:
        """Sets the states' centre and scale to those of some chunks, before training.

        Pretrained BERT's states share one large component (Ethayarajh, "How contextual are contextualized word
        representations?", EMNLP 2019); left in, it drowned what tells behaviour apart and the heads learned a constant.
        """
        self.eval()
        states, real = self.states(ids)
        points = states[real]
        self.center.copy_(points.mean(dim=0))
        self.scale.copy_(points.std(dim=0).clamp(min=1e-3))

    @staticmethod
    def mean_state(states: Tensor, real: Tensor) -> Tensor:
        """Mean over the positions that are not padding, (B, H)."""
        weights = real.unsqueeze(-1).to(states.dtype)
        return (states * weights).sum(dim=1) / weights.sum(dim=1)

    def forward(self, ids: Tensor, noise: Tensor | None = None) -> Logits:
        """Scores chunks: `ids` int (B, P, S), zero where there is no value."""
        states, real = self.states(ids, noise)
        event_logits = self.event_head(states).squeeze(-1)  # (B, P)
        attention = self.attention_head(states).squeeze(-1).masked_fill(ids[:, :, 0] != EVENT, -1e4).softmax(dim=1)
        mean = self.mean_state(states, real)  # (B, H)
        chunk = self.dropout(torch.cat((mean, states[:, 0]), dim=-1))  # (B, 2H)
        sequence_logit = (attention * event_logits).sum(dim=1) + self.window_head(chunk).squeeze(-1)
        return Logits(sequence_logit, self.type_head(chunk), event_logits, self.foreign_head(states).squeeze(-1))


@torch.no_grad()
def load_pretrained(model: BehaviourBert, encoder: Encoder, directory: str) -> None:
    """Starts the model from BERT weights: the encoder as it is, and the table from the word pieces of what rows mean.

    A row whose meaning can be put into words ("purchase", "0.8 to 1.6 s") starts from the mean of their pieces'
    embeddings, less the mean over its field: what a field's rows share would drown, in the sum over fields, what
    tells them apart. A little noise parts rows that share their words. Identifiers and pairs start at random, at the
    pretrained embeddings' scale.

    Where the model has fewer layers than the weights it takes the lowest (Sajjad et al., "On the effect of dropping
    layers of pre-trained transformer models", Computer Speech & Language 2023).

    Raises:
        ValueError: the weights have another shape than the preset.
    """
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # it lists the unused pooler at length
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    source = BertModel.from_pretrained(directory, add_pooling_layer=False)
    config, wanted = source.config, model.bert.config
    shape = (config.num_hidden_layers, config.hidden_size, config.num_attention_heads, config.intermediate_size)
    preset = (wanted.num_hidden_layers, wanted.hidden_size, wanted.num_attention_heads, wanted.intermediate_size)
    if shape[1:] != preset[1:] or shape[0] < preset[0]:
        raise ValueError(f"{directory} has layers, width, heads, feed-forward {shape}; the preset needs {preset}")
    dropped = tuple(f"encoder.layer.{k}." for k in range(preset[0], shape[0]))
    weights = {name: w for name, w in source.state_dict().items() if not name.startswith(dropped)}
    words = weights.pop("embeddings.word_embeddings.weight")
    positions = weights.pop("embeddings.position_embeddings.weight")
    weights["embeddings.position_embeddings.weight"] = positions[: wanted.max_position_embeddings]
    missing, unexpected = model.bert.load_state_dict(weights, strict=False)
    left = [k for k in (*missing, *unexpected) if "word_embeddings" not in k and "position_ids" not in k]
    if left:
        raise ValueError(f"{directory} does not fit a BERT encoder: {left[:5]}")

    tokenizer = encoder.tokenizer or Tokenizer.from_file(f"{directory}/tokenizer.json")
    spread = float(words.std())
    table = model.table.weight.data
    table.normal_(std=spread)
    for f, _, start, end in encoder.of("event"):
        if not f.deep or isinstance(f, Neighbourhood) or (isinstance(f, Vocabulary) and f.identifier):
            continue  # what an identifier is called says nothing
        pieces = [tokenizer.encode(f.label(row), add_special_tokens=False).ids for row in range(f.size)]
        means = torch.stack([words[p].mean(dim=0) for p in pieces])
        means -= means.mean(dim=0)
        rows = table[start:end]
        rows.mul_(0.2).add_(means * (spread / means.std().clamp(min=1e-6)))
    for f, _, start, end in encoder.of("piece"):
        if isinstance(f, Word):
            table[start:end] = words
    table[CLS], table[EVENT] = words[tokenizer.token_to_id("[CLS]")], words[tokenizer.token_to_id("[SEP]")]
    table[PIECE] = 0.0
    table[PAD] = 0.0


@torch.no_grad()
def carry_over(
    model: BehaviourBert,
    encoder: Encoder,
    types: Sequence[str],
    weights: Mapping[str, Tensor],
    old: Encoder,
    old_types: Sequence[str],
) -> int:
    """Starts the model from another's weights, each row of the table from that of the same meaning.

    What the other did not know, new values and new types, stays as it is in the model.

    Args:
        model: of the same preset.
        encoder, types: the model's.
        weights, old, old_types: the other model's state, its encoder and its types.

    Returns:
        how many rows of the table were carried over.
    """
    other = dict(weights)
    table = other.pop("bert.embeddings.word_embeddings.weight")
    heads = {part: other.pop(f"type_head.{part}") for part in ("weight", "bias")}
    missing, unexpected = model.load_state_dict(other, strict=False)
    left = [k for k in (*missing, *unexpected) if not k.startswith(("bert.embeddings.word_embeddings", "type_head"))]
    if left:
        raise ValueError(f"the old weights do not fit: {left[:5]}")
    meant = {name: row for row, name in enumerate(_meanings(old))}
    pairs = [(row, meant[name]) for row, name in enumerate(_meanings(encoder)) if name in meant]
    rows, old_rows = (list(side) for side in zip(*pairs, strict=True))
    model.table.weight[rows] = table[old_rows]
    for number, name in enumerate(types):
        if name in old_types:
            model.type_head.weight[number] = heads["weight"][old_types.index(name)]
            model.type_head.bias[number] = heads["bias"][old_types.index(name)]
    return len(rows)


def _meanings(encoder: Encoder) -> list[tuple[str, str, bool]]:
    """What each row of the table with an embedding stands for: its field, its value there, and whether it is none."""
    found = [("", str(row), False) for row in range(encoder.deep_rows)]
    for f, _, start, end in encoder.stretches:
        for row in range(start, end if f.deep else start):
            # the other fields have the same rows in every encoder, and some of their labels are alike
            label = f.label(row - start) if f.of == "event" else str(row - start)
            found[row] = f.name, label, row - start < FIRST
    return found
