import numpy as np
import pytest

from service.encoding.columns import columns_of
from service.model.bundle import Bundle
from service.model.calibration import CHANNELS, logit
from service.model.lengths import bins
from service.model.reasons import reasons
from service.model.scorer import evidence


def test_reasons_sum_to_the_log_odds_of_the_score(bundle: Bundle) -> None:
    encoder, calibration, tabular = bundle.encoder, bundle.calibration, bundle.tabular
    encoded = [encoder.encode(*columns_of(s["events"])) for s in bundle.golden()]
    together = evidence(encoded, bundle.engine().run, tabular)
    for i, e in enumerate(encoded):
        found = together.take(np.array([i]))
        [bin_] = bins(found.lengths)
        linear = calibration.weights[bin_][CHANNELS.index("linear")]
        # where nothing speaks
        constant = calibration.bias[bin_] + calibration.shift + linear * tabular.linear.bias[0]
        of_sequence = reasons(e, found, encoder, tabular, calibration)
        odds = sum(r.contribution for r in of_sequence) + constant
        assert odds == pytest.approx(logit(np.clip(calibration.score(found)[0], 1e-9, 1 - 1e-9)), abs=1e-3)
        sizes = [abs(r.contribution) for r in of_sequence]
        assert sizes == sorted(sizes, reverse=True)
        assert reasons(e, found, encoder, tabular, calibration, 5) == of_sequence[:5]
        assert {r.event for r in of_sequence} <= {None, *range(e.length)}
