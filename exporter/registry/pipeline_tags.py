"""Which registered models stand before and behind a version: the tags that name them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from exporter.errors import ConflictError, ValidationFailedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exporter.registry.client import Registry

__all__ = ["PARTS", "pipeline_models"]

PARTS = ("preprocessing", "postprocessing")
"""The places in a pipeline beside the model's own, with tags ``stlab.<place>``."""

_NAMED = re.compile(
    r"(?:models:/)?(?P<model>[^/@]+)(?:/(?P<version>[1-9][0-9]{0,17})|@(?P<alias>[^/@]+))"
)


def pipeline_models(registry: Registry, tags: Mapping[str, str]) -> dict[str, tuple[str, int]]:
    """Return the registered model and version in each place that a version's tags fill.

    Args:
        registry: The registry.
        tags: The version's tags; one is ``models:/scaler/3`` or ``models:/scaler@prod``.

    Raises:
        ValidationFailedError: A tag names no version of a model.
        NotFoundError: There is no such model or version.
        ConflictError: The alias names no version.
        UnavailableError: The registry went away.
    """
    found = {}
    for place in PARTS:
        text = tags.get(f"stlab.{place}")
        if not text:
            continue
        named = _NAMED.fullmatch(text.strip())
        if named is None:
            raise ValidationFailedError(
                f"the tag stlab.{place} is {text!r}, which names no version of a model",
                hint="Set it to models:/NAME/VERSION or models:/NAME@ALIAS.",
                kind="pipeline",
            )
        model, alias = named["model"], named["alias"]
        version = int(named["version"]) if named["version"] else registry.aliases(model).get(alias)
        if version is None:
            raise ConflictError(
                f"the tag stlab.{place} names '{alias}' of '{model}', which names no version",
                hint=f"Promote a version of '{model}' to '{alias}', or name one by its number.",
            )
        found[place] = (model, version)
    return found
