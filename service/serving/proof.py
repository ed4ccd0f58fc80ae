"""Proves that a bundle can serve, and describes the one that does."""

import hashlib
import json
from pathlib import Path

import numpy as np

from service.engine.remote import EngineLost
from service.engine.session import ProviderError, Runtime
from service.model.bundle import Bundle, BundleError
from service.model.drift import SCORE_BINS
from service.model.scorer import Model
from service.schemas.operations import ModelAnswer


def proved(path: Path, public_key: Path | None, runtime: Runtime, content: str | None = None) -> Model:
    """The model of a bundle, all parts of which have been read and tried; blocks.

    Args:
        path: the bundle; where it is a link, what it leads to now.
        public_key: as `Bundle.open` takes it.
        runtime: what runs the graph.
        content: the digest that its content must have, if only one will do.

    Raises:
        BundleError: it must not serve, whatever is wrong with it.
        ProviderError, EngineLost: the runtime cannot run it.
    """
    try:
        bundle = Bundle.open(path.resolve(), public_key)
        if content is not None and content_of(bundle) != content:
            raise BundleError(f"{path}: its content has changed meanwhile; copy a bundle whole, then reload it")
        model = Model.load(bundle, runtime)
        if np.asarray(bundle.manifest["validation_scores"], dtype=float).shape != (SCORE_BINS,):
            raise BundleError(f"{path}/manifest.json: validation_scores are not {SCORE_BINS} numbers")
        _ = (
            bundle.types,
            bundle.thresholds,
            bundle.support,
            bundle.cascade,
            bundle.partial_types,
            bundle.field_values,
            bundle.golden(),
        )
        described(model, "", None)
    except (BundleError, ProviderError, EngineLost):
        raise
    except KeyError as error:
        raise BundleError(f"{path}: manifest.json or another of its files lacks {error}") from error
    except Exception as error:  # whatever a wrong part raises, it must not be met by a request first
        raise BundleError(f"{path}: cannot serve: {type(error).__name__}: {error}") from error
    return model


def content_of(bundle: Bundle) -> str:
    """A digest of all that a bundle holds; two bundles of the same digest serve alike."""
    return hashlib.sha256(json.dumps(bundle.manifest, sort_keys=True).encode()).hexdigest()


def described(model: Model, requested: str, second: Bundle | None) -> ModelAnswer:
    """What is told of the model being served, with the challenger if there is one."""
    m = model.bundle.manifest
    return ModelAnswer(
        name=model.bundle.name,
        version=model.bundle.version,
        created=m["created"],
        schema_version=m["schema_version"],
        preset=m["preset"],
        provider=model.engine.provider,
        requested_provider=requested,
        precision=model.engine.precision,
        types=model.bundle.types,
        feature_spec=m["feature_spec"],
        metrics=m["metrics"],
        promise=m["promise"],
        prevalence=model.bundle.calibration.prevalence,
        challenger={"name": second.name, "version": second.version} if second else None,
    )
