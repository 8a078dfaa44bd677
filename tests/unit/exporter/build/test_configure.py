from __future__ import annotations

import pytest

from exporter.build.configure import WarmupInput, build_config
from exporter.errors import ValidationFailedError
from exporter.interface import Interface, Tensor
from exporter.triton.model_config import differences, parse, render, with_versions
from tests.support.bundles import INTERFACE, conversion

SCALARS = Interface(
    (Tensor("x", "FP32", ("n", 4)), Tensor("weight", "INT64", ("n",))),
    (Tensor("score", "FP32", ("n",)), Tensor("label", "BYTES", ("n", 1, "k"))),
)


def test_everything_is_written_and_comes_back() -> None:
    warmup = [WarmupInput(INTERFACE.inputs[0], (4,), "x.bin")]
    config = build_config("net", 7, conversion(), max_batch_size=16, warmup=warmup)
    text = render(config)
    assert parse(text, where="it") == config
    assert render(parse(text, where="it")) == text
    for line in (
        'name: "net"',
        'backend: "onnxruntime"',
        'default_model_filename: "model.onnx"',
        "max_batch_size: 16",
        "versions: 7",
        "dynamic_batching",
        "kind: KIND_AUTO",
        "count: 1",
        "intra_op_thread_count",
    ):
        assert line in text
    assert [(entry.name, list(entry.dims)) for entry in config.input] == [("x", [4])]
    assert [(entry.name, list(entry.dims)) for entry in config.output] == [("y", [2])]


def test_the_queue_has_bounds_where_they_are_asked_for() -> None:
    def policy(**sizes: int) -> object:
        config = build_config("net", 1, conversion(), warmup=[], **sizes)
        assert parse(render(config), where="it") == config
        batching = config.dynamic_batching
        return batching.HasField("default_queue_policy") and batching.default_queue_policy

    assert policy(max_batch_size=8) is False
    assert policy(max_batch_size=8, max_queue_size=64).max_queue_size == 64  # type: ignore[attr-defined]
    # No batcher, no queue of its own.
    assert policy(max_batch_size=0, max_queue_size=64) is False


def test_a_scalar_per_row_is_reshaped() -> None:
    config = build_config("net", 1, conversion(SCALARS), max_batch_size=8, warmup=[])
    entries = {entry.name: entry for entry in (*config.input, *config.output)}
    for name in ("weight", "score"):
        assert list(entries[name].dims) == [1]
        assert entries[name].HasField("reshape")
        assert list(entries[name].reshape.shape) == []
    assert list(entries["label"].dims) == [1, -1]
    assert not entries["label"].HasField("reshape")
    assert parse(render(config), where="it") == config


def test_without_batching_rows_are_an_axis_like_others() -> None:
    config = build_config("net", 1, conversion(SCALARS), max_batch_size=0, warmup=[])
    assert config.max_batch_size == 0
    assert not config.HasField("dynamic_batching")
    assert [list(entry.dims) for entry in config.input] == [[-1, 4], [-1]]
    assert not any(entry.HasField("reshape") for entry in (*config.input, *config.output))


@pytest.mark.parametrize(("max_batch_size", "sizes"), [(16, [1, 16]), (1, [1]), (0, [1])])
def test_it_is_warmed_up_with_one_row_and_the_most(max_batch_size: int, sizes: list[int]) -> None:
    shape = (4,) if max_batch_size else (2, 4)
    warmup = [WarmupInput(INTERFACE.inputs[0], shape, "x.bin")]
    config = build_config("net", 1, conversion(), max_batch_size=max_batch_size, warmup=warmup)
    assert [setting.batch_size for setting in config.model_warmup] == sizes
    for setting in config.model_warmup:
        assert setting.count >= 1
        assert list(setting.inputs["x"].dims) == list(shape)
        assert setting.inputs["x"].input_data_file == "x.bin"


def test_datatypes_go_by_tritons_names() -> None:
    config = build_config("net", 1, conversion(SCALARS), max_batch_size=0, warmup=[])
    text = render(config)
    for name in ("TYPE_FP32", "TYPE_INT64", "TYPE_STRING"):
        assert name in text


def test_other_versions_are_a_copy() -> None:
    config = build_config("net", 1, conversion(), max_batch_size=8, warmup=[])
    other = with_versions(config, {3, 1, 2})
    assert list(other.version_policy.specific.versions) == [1, 2, 3]
    assert list(config.version_policy.specific.versions) == [1]


@pytest.mark.parametrize("text", ["name", "no_such_field: 1", "max_batch_size: 'x'", "input {"])
def test_what_is_no_config_is_named(text: str) -> None:
    with pytest.raises(ValidationFailedError, match="the/file is not a Triton model configuration"):
        parse(text, where="the/file")


def test_what_the_server_adds_is_its_own_and_what_it_changes_is_told() -> None:
    warmup = [WarmupInput(INTERFACE.inputs[0], (4,), "x.bin")]
    ours = build_config("net", 1, conversion(), max_batch_size=8, warmup=warmup)
    served = with_versions(ours, [1])
    served.platform = "onnxruntime_onnx"
    served.instance_group[0].name = "net_0"
    served.optimization.input_pinned_memory.enable = True
    assert differences(ours, served) == []
    served.max_batch_size = 4
    served.dynamic_batching.max_queue_delay_microseconds = 1
    ours.dynamic_batching.max_queue_delay_microseconds = 2
    served.input[0].dims[0] = 5
    served.parameters["intra_op_thread_count"].string_value = "9"
    found = " | ".join(differences(ours, served))
    for word in ("max_batch_size", "max_queue_delay", "input[0].dims", "intra_op_thread_count"):
        assert word in found
    del served.output[0]
    assert any(line.startswith("output: 1 became 0") for line in differences(ours, served))


def test_batching_that_the_server_adds_is_told() -> None:
    ours = build_config("net", 1, conversion(), max_batch_size=0, warmup=[])
    served = with_versions(ours, [1])
    served.max_batch_size = 4
    served.dynamic_batching.SetInParent()
    found = " | ".join(differences(ours, served))
    assert "max_batch_size: 0 became 4" in found
    assert "dynamic_batching was added" in found
