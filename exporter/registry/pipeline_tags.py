"""The tags that name the preprocessing and postprocessing models of a version."""

from __future__ import annotations

import re
from collections.abc import Mapping

from exporter.errors import ConflictError, ValidationFailedError
from exporter.registry.client import Registry

__all__ = ["PARTS", "pipeline_models"]

PARTS = ("preprocessing", "postprocessing")
"""The places in a pipeline before and after the model, with tags ``stlab.<place>``."""

_REFERENCE = re.compile(
    r"(?:models:/)?(?P<model>[^/@]+)(?:/(?P<version>[1-9][0-9]{0,17})|@(?P<alias>[^/@]+))"
)


def pipeline_models(registry: Registry, tags: Mapping[str, str]) -> dict[str, tuple[str, int]]:
    """Return the registered model and version for each place that a version's tags fill.

    A tag is such as ``models:/scaler/3`` or ``models:/scaler@prod``.

    Raises:
        ValidationFailedError: A tag is not a reference to a model version.
        NotFoundError: The model or version does not exist.
        ConflictError: The alias points to no version.
        UnavailableError: The registry does not answer.
    """
    found = {}
    for place in PARTS:
        text = tags.get(f"stlab.{place}")
        if not text:
            continue
        parts = _REFERENCE.fullmatch(text.strip())
        if parts is None:
            raise ValidationFailedError(
                f"the tag stlab.{place} is {text!r}, not a reference to a model version",
                hint="Set it to models:/NAME/VERSION or models:/NAME@ALIAS.",
                kind="pipeline",
            )
        model, alias = parts["model"], parts["alias"]
        version = int(parts["version"]) if parts["version"] else registry.aliases(model).get(alias)
        if version is None:
            raise ConflictError(
                f"the tag stlab.{place} is {text!r}, and '{alias}' of '{model}' points to no "
                "version",
                hint=f"Promote a version of '{model}' to '{alias}', or use a version number.",
            )
        found[place] = (model, version)
    return found
