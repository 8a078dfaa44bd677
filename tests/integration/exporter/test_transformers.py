"""Models of transformers: what their tokenizer makes goes in, what the model returns comes out."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch as safetensors_torch
import torch
import transformers

from exporter.arrays import read_npz
from exporter.commands.export.result import ExportResult
from exporter.sources.transformers.loading import library, load_network
from exporter.triton.model_config import parse
from tests.support.registering import RegistryFixture

pytestmark = pytest.mark.triton


WORDS = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "a", "cat", "dog", "film", "sat", "ran"),
    *("on", "was", "very", "good", "bad", "fast", "slow", "##s"),
]
TEXTS = ["the cat sat on the dog", "a very bad film"]
SIZES: Mapping[str, Any] = {"vocab_size": len(WORDS), "max_position_embeddings": 48}


def tokenizer() -> Any:
    return transformers.BertTokenizer(vocab={word: i for i, word in enumerate(WORDS)})


def bert(kind: str, **settings: Any) -> Any:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=48,
        **SIZES,
        **settings,
    )
    return getattr(transformers, kind)(config).eval()


def register(
    lab: RegistryFixture, name: str, model: Any, task: str, example: Any = None, **more: Any
) -> None:
    import mlflow

    with lab._logging(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.transformers.log_model(
            {"model": model, "tokenizer": tokenizer()},
            name="model",
            task=task,
            input_example=example,
            registered_model_name=name,
            pip_requirements=["transformers"],
            **more,
        )


def proven(lab: RegistryFixture, name: str, **options: object) -> ExportResult:
    result = lab.export(name, **options)
    assert result.status == "promoted", result.error
    assert (result.parity or {})["batching"] == "dynamic"
    return result


def declared(lab: RegistryFixture, name: str) -> Mapping[str, list[int]]:
    config = parse((lab.folder / "repository" / name / "config.pbtxt").read_text(), where=name)
    return {entry.name: list(entry.dims) for entry in (*config.input, *config.output)}


def test_a_pipeline_that_classifies_texts(lab: RegistryFixture) -> None:
    model = bert("BertForSequenceClassification", num_labels=3)
    register(lab, "classifier", model, "text-classification", TEXTS)
    proven(lab, "classifier")
    assert declared(lab, "classifier") == {
        "input_ids": [-1],
        "token_type_ids": [-1],
        "attention_mask": [-1],
        "logits": [3],
    }
    # What was kept to be replayed are the logged texts, as their tokenizer cuts them.
    kept = read_npz(lab.folder / "repository" / "classifier" / "1" / "samples.npz")
    given = tokenizer()(TEXTS, padding=True, return_tensors="np")
    width = given["input_ids"].shape[1]
    ids = kept["example/input/input_ids"][: len(TEXTS), :width]
    assert np.array_equal(ids, given["input_ids"])
    assert kept["example/input/attention_mask"].min() == 0
    # ... and what the registered model itself makes of them.
    with torch.no_grad():
        expected = model(**{k: torch.tensor(v) for k, v in given.items()}).logits.numpy()
    found = kept["example/output/logits"][: len(TEXTS)]
    assert np.allclose(found, expected, atol=1e-5)


def test_several_outputs_without_an_example(lab: RegistryFixture) -> None:
    register(lab, "features", bert("BertModel"), "feature-extraction")
    # As older releases kept weights: a pickle.
    folder = lab.artifact("features") / "model"
    weights = safetensors_torch.load_file(folder / "model.safetensors")
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    refused(lab, "features", "unsafe", "pytorch_model.bin was not loaded: it is a pickle")
    result = proven(lab, "features", allow_pickle=True)
    told = declared(lab, "features")
    assert told["last_hidden_state"] == [-1, 32]
    assert told["pooler_output"] == [32]
    notes = (lab.folder / "repository" / "features" / "1" / "report.json").read_text()
    assert "clients tokenize texts" in notes, result.report
    assert "no example with texts" in notes


def refused(lab: RegistryFixture, name: str, kind: str, words: str, **options: object) -> None:
    result = lab.export(name, **options)
    assert result.exit_code == 3
    assert (result.error or {})["kind"] == kind, result.error
    assert words in (result.error or {})["message"], result.error
    assert lab.alias(name) is None


@pytest.fixture(scope="module")
def tampered(lab: RegistryFixture) -> Path:
    """The artifact of a good version, to be changed."""
    model = bert("BertForMaskedLM")
    register(lab, "tampered", model, "fill-mask", ["the [MASK] sat"])
    return lab.artifact("tampered")


@pytest.fixture
def artifact(tampered: Path, tmp_path: Path) -> Iterator[Path]:
    kept = tmp_path / "kept"
    shutil.copytree(tampered, kept)
    yield tampered
    shutil.rmtree(tampered)
    shutil.copytree(kept, tampered)


def rewritten(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def test_code_in_the_artifact(lab: RegistryFixture, artifact: Path) -> None:
    (artifact / "model" / "modeling_bert.py").write_text("raise SystemExit")
    refused(lab, "tampered", "unsafe", "modeling_bert.py")


def test_a_class_that_is_not_of_transformers(lab: RegistryFixture, artifact: Path) -> None:
    text = (artifact / "MLmodel").read_text()
    (artifact / "MLmodel").write_text(text.replace("BertForMaskedLM", "BertConfig"))
    # Allowed to unpickle it still runs no code of the version's own.
    refused(lab, "tampered", "flavor", "'BertConfig' is no model", allow_pickle=True)


def test_weights_that_would_be_drawn_anew(lab: RegistryFixture, artifact: Path) -> None:
    path = artifact / "model" / "model.safetensors"
    weights = safetensors_torch.load_file(path)
    weights.pop("bert.encoder.layer.0.output.dense.weight")
    safetensors_torch.save_file(weights, path, metadata={"format": "pt"})
    refused(lab, "tampered", "determinism", "bert.encoder.layer.0.output.dense.weight")


def test_weights_of_another_process_or_place(lab: RegistryFixture, artifact: Path) -> None:
    (artifact / "model" / "model.safetensors").unlink()
    index = {"weight_map": {"bert.pooler.dense.bias": "../../../other.safetensors"}}
    (artifact / "model" / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(lab, "tampered", "artifact", "outside itself")


@pytest.mark.parametrize("word", ["quantization_config", "transformers_weights"])
def test_a_config_that_would_load_more(lab: RegistryFixture, artifact: Path, word: str) -> None:
    rewritten(artifact / "model" / "config.json", lambda config: config.update({word: "x"}))
    refused(lab, "tampered", "flavor", word)


def test_an_attention_that_would_be_fetched(lab: RegistryFixture, artifact: Path) -> None:
    # It is code from a hub; what transformers has itself is taken instead.
    rewritten(
        artifact / "model" / "config.json",
        lambda config: config.update(_attn_implementation="somebody/attention"),
    )
    network = load_network(library(), "BertForMaskedLM", artifact / "model", "float32")
    assert network.config._attn_implementation == "sdpa"


def test_only_the_name_of_a_model(lab: RegistryFixture, artifact: Path) -> None:
    shutil.rmtree(artifact / "model")
    refused(lab, "tampered", "artifact", "holds no weights")


def test_no_tokenizer(lab: RegistryFixture, artifact: Path) -> None:
    text = (artifact / "MLmodel").read_text()
    (artifact / "MLmodel").write_text(text.replace("    - tokenizer\n", "    - other\n"))
    refused(lab, "tampered", "interface", "no tokenizer")
