"""The MLflow ``transformers`` flavor: the model behind a pipeline, as its tensors.

The served model takes the tokenizer's tensors and returns the model's. Tokenizing texts, and making
answers from logits, is left to the client.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from exporter.arrays import Arrays
from exporter.errors import ValidationFailedError
from exporter.sources.mlmodel import MLModel
from exporter.sources.transformers.example_inputs import (
    example_texts,
    image_inputs,
    token_inputs,
)
from exporter.sources.transformers.loading import (
    check_files,
    library,
    load_network,
    load_tokenizer,
)

if TYPE_CHECKING:
    from exporter.sources.pytorch import ModuleSource

__all__ = ["open_source"]


def open_source(model: MLModel, *, allow_pickle: bool) -> ModuleSource:
    """Open a logged transformers model or pipeline.

    The artifact's own code is never run: the classes of the model and the tokenizer must be
    transformers' own.

    Raises:
        ValidationFailedError: It holds code or a pickle where that is not allowed, is damaged, is
            no model of transformers' own, or takes more than its tokenizer makes.
        UsageError: transformers is not installed.
    """
    transformers = library()
    facts = model.flavors["transformers"]
    folder = model.file(str(facts.get("model_binary") or "model"))
    check_files(facts, folder, model.file("components"), allow_pickle=allow_pickle)
    dtype = str(facts.get("torch_dtype") or "auto").removeprefix("torch.")
    texts = example_texts(model.example_content())
    with _quiet():
        network = load_network(transformers, str(facts.get("pipeline_model_type")), folder, dtype)
        inputs = _inputs(transformers, model, network, texts)
        source = _source(network, inputs)
    source.versions = {**source.versions, "transformers": transformers.__version__}
    source.notes += _notes(inputs, texts)
    return source


def _inputs(transformers: Any, model: MLModel, network: Any, texts: Sequence[str]) -> Arrays:
    components = list(model.flavors["transformers"].get("components") or ())
    if "tokenizer" in components:
        tokenizer = load_tokenizer(transformers, model.file("components") / "tokenizer")
        return token_inputs(tokenizer, network, texts)
    if "image_processor" in components or "feature_extractor" in components:
        return image_inputs(network)
    raise ValidationFailedError(
        "the version has no tokenizer, which says what the model takes",
        hint="Log it as a pipeline, or as {'model': model, 'tokenizer': tokenizer}.",
        kind="interface",
    )


def _source(network: Any, inputs: Arrays) -> ModuleSource:
    # torch is imported with a model, not to check its files.
    from exporter.sources.pytorch import ModuleSource
    from exporter.sources.transformers.tensor_outputs import Tensors

    # Of images the rows vary, of texts their length as well.
    varying = {name: (0,) if name == "pixel_values" else (0, 1) for name in inputs}
    try:
        return ModuleSource(Tensors(network, list(inputs)), inputs, varying, flavor="transformers")
    except ValidationFailedError as error:
        if error.kind != "signature":
            raise
        raise ValidationFailedError(
            f"{error.message}; its inputs are {', '.join(inputs)}",
            hint="A server has only the tokenizer's tensors, and not for example the tokens "
            "generated so far: log such a module with mlflow.pytorch.",
            kind="interface",
        ) from error


def _notes(inputs: Arrays, texts: Sequence[str]) -> Iterator[str]:
    taken = ", ".join(f"'{name}'" for name in inputs)
    if "pixel_values" in inputs:
        yield f"The served model takes {taken}: clients prepare the images."
        return
    yield (
        f"The served model takes {taken}: clients tokenize texts with the logged tokenizer, and do "
        "what the pipeline does with the outputs."
    )
    if not texts:
        yield "The version has no example with texts; inputs are words of its tokenizer."


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings(action="ignore"), contextlib.redirect_stderr(io.StringIO()):
        yield
