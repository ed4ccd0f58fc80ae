"""The linear part: logistic regression over the rows of the embedding table that a sequence touches.

A sequence's feature for row v is n_v idf_v / sqrt(sum over its row uses of idf^2), which the graph computes by two
gathers and two sums: TF-IDF but for the norm, which counts a repeated row by its uses.
"""

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from service.encoding import MASK, Encoded
from training.calibration import UNLABELLED


def _counts(sequences: Sequence[Encoded], rows: int) -> sp.csr_matrix:
    """Float64 (N, rows): how often each sequence uses each row; roles and padding are left out."""
    indices, indptr = [], [0]
    for encoded in sequences:
        used = np.concatenate([w[1:].ravel() for w in encoded.windows] + [encoded.windows[0][0]])
        indices.append(used[used > MASK])
        indptr.append(indptr[-1] + len(indices[-1]))
    flat = np.concatenate(indices)
    matrix = sp.csr_matrix((np.ones(len(flat)), flat, indptr), shape=(len(sequences), rows))
    matrix.sum_duplicates()
    return matrix


def fit_wide(
    sequences: Sequence[Encoded],
    label: NDArray[np.int8],
    types: NDArray[np.int64],
    rows: int,
    count: int,
    strength: float = 10.0,
) -> NDArray[np.float32]:
    """Fits the linear part, of the label on all sequences and of the type on those that have one.

    Args:
        sequences: training sequences.
        label: int8 (N,).
        types: int64 (N,), index of the anomaly type, UNLABELLED where there is none.
        rows: rows of the table.
        count: types, K.
        strength: inverse of the L2 penalty, scikit-learn's C.

    Returns:
        float32 (rows, 2 + K): each row's weight times idf, its idf squared, and its weights for the types times idf.
    """
    counts = _counts(sequences, rows)
    holders = np.asarray((counts > 0).sum(axis=0)).ravel()
    idf = np.where(holders > 0, np.log((1 + len(sequences)) / (1 + holders)) + 1, 0.0)
    norm = np.sqrt(np.asarray(counts @ (idf * idf)).ravel())
    features = sp.csr_matrix(sp.diags(1 / np.maximum(norm, 1e-6)) @ counts @ sp.diags(idf))
    table = np.zeros((rows, 2 + count))
    table[:, 0] = LogisticRegression(C=strength, max_iter=1000).fit(features, label).coef_[0] * idf
    table[:, 1] = idf * idf
    named = np.flatnonzero(types != UNLABELLED)
    if len(np.unique(types[named])) > 1:
        model = LogisticRegression(C=strength, max_iter=1000).fit(features[named], types[named])
        weights = model.coef_ if len(model.classes_) > 2 else np.concatenate((-model.coef_, model.coef_)) / 2
        table[:, 2 + model.classes_] = weights.T * idf[:, None]
    return table.astype(np.float32)
