from hypothesis import given
from hypothesis import strategies as st

from training.config import LEAST_EPOCHS, PRESETS, FitConfig


@given(st.integers(1, 10**9), st.sampled_from(list(PRESETS)), st.integers(1, 5))
def test_fine_tuning_keeps_to_its_budget(given_positions: int, preset: str, folds: int) -> None:
    config = FitConfig(preset=preset, folds=folds)
    epochs, share = config.epochs_of(given_positions)
    assert LEAST_EPOCHS <= epochs <= config.epochs
    assert 0 < share <= 1
    networks = 1 if folds == 1 else folds + 1
    assert epochs * share * given_positions * networks * PRESETS[preset].weights <= config.budget * (1 + 1e-9)
