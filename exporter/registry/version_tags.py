"""The tags of a version with its newest proven bundle.

The bundle that was promoted to an alias is in `exporter.registry.promotion_record`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["FAILED", "BundleTags", "has_passed"]

_PARITY = "stlab.parity"
FAILED = {_PARITY: "failed"}
"""The tags of a version that an export rejected."""

# By field of `BundleTags`.
_TAGS = {
    "sha256": "stlab.bundle.sha256",
    "uri": "stlab.bundle.uri",
    "format": "stlab.bundle.format",
    "settings": "stlab.bundle.settings",
    "margin": "stlab.parity.margin",
    "strength": "stlab.parity.strength",
    "run_id": "stlab.export.run_id",
}


def has_passed(tags: Mapping[str, str]) -> bool:
    """Whether a version's newest evidence passed."""
    return tags.get(_PARITY) == "passed"


@dataclass(frozen=True, slots=True)
class BundleTags:
    """The newest proven bundle of a version.

    Attributes:
        uri: Where the registry stores the bundle.
        settings: The digest of the settings that the bundle was built with.
        margin: The worst error ÷ budget of the evidence, as text.
        strength: ``strong`` or ``weak`` evidence.
        run_id: The MLflow run that holds the bundle.
    """

    sha256: str
    uri: str
    format: str
    settings: str
    margin: str
    strength: str
    run_id: str

    @classmethod
    def read(cls, tags: Mapping[str, str]) -> BundleTags:
        """Read the tags; a missing one is an empty string."""
        return cls(**{field: tags.get(tag, "") for field, tag in _TAGS.items()})

    def as_tags(self) -> dict[str, str]:
        """Return the tags of a version with passing evidence, in the order to write them."""
        tags = {tag: str(getattr(self, field)) for field, tag in _TAGS.items()}
        # Last: readers ignore the other tags until this one is set.
        return {**tags, _PARITY: "passed"}
