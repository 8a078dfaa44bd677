"""What may be loaded of a logged model without running code that it carries."""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING, Any

from exporter.errors import UsageError, ValidationFailedError, first_line

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["check_pickle_allowed", "load_skops"]

_HARMLESS = frozenset({"collections.OrderedDict", "collections.defaultdict"})


def check_pickle_allowed(what: str, instead: str, *, allow_pickle: bool) -> None:
    """Refuse a pickle unless it is allowed.

    Raises:
        ValidationFailedError: It is not.
    """
    if not allow_pickle:
        raise ValidationFailedError(
            f"{what} was not loaded: it is a pickle, and loading one runs code that it carries",
            hint=f"Log the model with {instead}, or trust whoever logged it with --allow-pickle.",
            kind="unsafe",
        )


def load_skops(path: Path, packages: Sequence[str], *, allow_pickle: bool) -> Any:
    """Load a skops file, of whose types all are known.

    What the MLmodel beside it lists as trusted is the word of whoever logged it, and counts for
    nothing.

    Args:
        path: The file.
        packages: Whose classes may be made beside those that skops itself trusts.
        allow_pickle: Whether any other type may be made as well.

    Raises:
        ValidationFailedError: It holds other types, or is damaged.
        UsageError: skops is not installed.
    """
    try:
        import skops.io
    except ImportError as error:
        raise UsageError(
            "the estimator is saved by skops, which is not installed",
            hint="pip install 'stlab[sklearn]'.",
        ) from error
    try:
        types = skops.io.get_untrusted_types(file=path)
        unknown = [name for name in types if not _is_class_of(name, packages)]
        if allow_pickle or not unknown:
            return skops.io.load(path, trusted=types)
    except Exception as error:
        raise ValidationFailedError(
            f"{path.name} cannot be loaded: {first_line(error)}",
            hint="Load it where it was logged, and log it again.",
            kind="artifact",
        ) from error
    raise ValidationFailedError(
        f"{path.name} was not loaded: it makes objects of {', '.join(sorted(unknown))}, which may "
        "run anything",
        hint="Leave them out of the estimator, or trust whoever logged it with --allow-pickle.",
        kind="unsafe",
    )


def _is_class_of(name: str, packages: Sequence[str]) -> bool:
    if name in _HARMLESS:
        return True
    if not name.startswith(tuple(packages)):
        return False
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError):
        return False
    return inspect.isclass(found) and found.__module__.startswith(tuple(packages))
