"""What the converters of boosted trees have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from exporter.errors import ValidationFailed, first_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnx

    from exporter.sources.base import OnnxTarget

__all__ = ["BoosterConverter", "picked_column"]

_MOST_OPSET = 15  # that the converters know


class BoosterConverter:
    """Converts boosted trees by one of onnxmltools' functions.

    Args:
        model: The booster or estimator.
        convert: The function.
        options: Of the function.
    """

    def __init__(self, model: Any, convert: Callable[..., Any], **options: Any) -> None:
        self._model = model
        self._convert = convert
        self._options = options

    def __call__(
        self, taken: Sequence[tuple[str, int, int]], target: OnnxTarget
    ) -> onnx.ModelProto:
        """Return the graph; see `exporter.sources.tabular.Converter`."""
        from onnxmltools.convert.common import data_types

        ((name, kind, width),) = taken
        of = data_types.DoubleTensorType if kind == 11 else data_types.FloatTensorType
        try:
            proto = self._convert(
                self._model,
                name="model",
                initial_types=[(name, of([None, width]))],
                target_opset=min(target.opset, _MOST_OPSET),
                **self._options,
            )
        except (RuntimeError, NotImplementedError, ValueError, KeyError) as error:
            raise ValidationFailed(
                f"onnxmltools has no ONNX form of this model: {first_line(error)}",
                hint="Train it with another objective or booster, or serve it otherwise.",
                kind="convert",
            ) from error
        return proto


def picked_column(objective: str) -> int | None:
    """Return the column of a classifier's probabilities that a booster's prediction is."""
    return 1 if objective.startswith(("binary:logistic", "binary ", "binary:")) else None
