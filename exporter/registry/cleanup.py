"""Close what interrupted commands left open in the registry."""

from __future__ import annotations

from exporter.registry.client import Registry
from exporter.registry.errors import translate_errors
from exporter.registry.promote import close_records
from exporter.registry.runs import close_abandoned

__all__ = ["clean_up"]


def clean_up(registry: Registry, model: str) -> None:
    """Close the stale records and abandoned runs that interrupted commands left of a model.

    Raises:
        UnavailableError: The registry does not answer.
    """
    aliases, versions = registry.get_model(model)
    with translate_errors(registry.uri):
        close_records(registry, model, versions, aliases)
        close_abandoned(registry, model)
