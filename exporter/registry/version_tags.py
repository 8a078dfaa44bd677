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


def has_passed(tags: Mapping[str, str]) -> bool:
    """Whether a version's newest evidence passed."""
    return tags.get(_PARITY) == "passed"


@dataclass(frozen=True, slots=True)
class BundleTags:
    """The newest proven bundle of a version.

    Attributes:
        sha256: The bundle's digest.
        uri: Where the registry stores the bundle.
        format: ``onnx``, ``torchscript`` or ``tensorrt``.
        settings: The digest of the settings that the bundle was built with.
        margin: The worst error ÷ budget of the evidence, as text.
        run_id: The MLflow run that holds the bundle.
    """

    sha256: str
    uri: str
    format: str
    settings: str
    margin: str
    run_id: str

    @classmethod
    def read(cls, tags: Mapping[str, str]) -> BundleTags:
        """Read the tags; a missing one is an empty string."""
        return cls(
            sha256=tags.get("stlab.bundle.sha256", ""),
            uri=tags.get("stlab.bundle.uri", ""),
            format=tags.get("stlab.bundle.format", ""),
            settings=tags.get("stlab.bundle.settings", ""),
            margin=tags.get("stlab.parity.margin", ""),
            run_id=tags.get("stlab.export.run_id", ""),
        )

    def as_tags(self) -> dict[str, str]:
        """Return the tags of a version with passing evidence, in the order to write them."""
        return {
            "stlab.bundle.sha256": self.sha256,
            "stlab.bundle.uri": self.uri,
            "stlab.bundle.format": self.format,
            "stlab.bundle.settings": self.settings,
            "stlab.parity.margin": self.margin,
            "stlab.export.run_id": self.run_id,
            # Last: readers ignore the other tags until this one is set.
            _PARITY: "passed",
        }
