import pytest
import torch

from service.model.bundle import Bundle
from training.config import PRESETS, FitConfig, pretrained_directory
from training.network.model import BehaviourBert, load_pretrained


def test_pretrained_weights_are_kept_and_readable_values_start_from_their_words(bundle: Bundle) -> None:
    from transformers import BertModel

    source = BertModel.from_pretrained(pretrained_directory(None), add_pooling_layer=False)
    encoder = bundle.encoder
    model = BehaviourBert(encoder.deep_rows, 1, PRESETS["base"], 128)
    load_pretrained(model, encoder, pretrained_directory(None))
    kept = dict(model.bert.named_parameters())
    for name, value in source.named_parameters():
        if "word_embeddings" not in name and "position_embeddings" not in name:
            assert torch.equal(kept[name], value), name
    shallow = BehaviourBert(encoder.deep_rows, 1, FitConfig(preset="base", layers=2).shape, 128)
    load_pretrained(shallow, encoder, pretrained_directory(None))
    lowest = dict(shallow.bert.named_parameters())
    assert sum(name.endswith("attention.self.query.weight") for name in lowest) == 2
    assert all(torch.equal(value, kept[name]) for name, value in lowest.items() if name.startswith("encoder."))
    with pytest.raises(ValueError, match="the preset needs"):
        load_pretrained(BehaviourBert(encoder.deep_rows, 1, PRESETS["tiny"], 128), encoder, pretrained_directory(None))
