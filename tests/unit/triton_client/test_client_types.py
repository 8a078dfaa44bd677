"""The table of data types, against Triton's own enum and in both directions."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from tritonclient.grpc import model_config_pb2

from triton_client import types
from triton_client.types import TensorSpec


def test_table_is_all_of_tritons_types() -> None:
    triton = set(model_config_pb2.DataType.keys()) - {"TYPE_INVALID"}
    assert {types.config_datatype(name) for name in types.DATATYPES} == triton


@pytest.mark.parametrize("datatype", types.DATATYPES)
def test_names_and_dtypes_go_both_ways(datatype: str) -> None:
    assert types.wire_datatype(types.numpy_dtype(datatype)) == datatype
    assert types.datatype_of_config(types.config_datatype(datatype)) == datatype


def test_bfloat16_is_that_of_ml_dtypes() -> None:
    assert types.numpy_dtype("BF16") == np.dtype(ml_dtypes.bfloat16)


@pytest.mark.parametrize(
    ("dtype", "datatype"),
    [(">f4", "FP32"), ("S5", "BYTES"), ("U3", "BYTES"), (object, "BYTES"), (bool, "BOOL")],
)
def test_wire_datatype_of_other_spellings(dtype: object, datatype: str) -> None:
    assert types.wire_datatype(dtype) == datatype


@pytest.mark.parametrize("dtype", ["complex64", "M8[ns]", [("a", "i4")]])
def test_what_triton_lacks_is_refused(dtype: object) -> None:
    with pytest.raises(ValueError, match="no data type"):
        types.wire_datatype(dtype)


@pytest.mark.parametrize("name", ["FP8", "TYPE_FP32", "STRING", ""])
def test_unknown_wire_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no data type"):
        types.numpy_dtype(name)
    with pytest.raises(ValueError, match="no data type"):
        types.config_datatype(name)


@pytest.mark.parametrize("name", ["FP32", "BYTES", "TYPE_BYTES", "TYPE_INVALID"])
def test_unknown_config_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="data type"):
        types.datatype_of_config(name)


def test_tensor_spec_reads_well() -> None:
    spec = TensorSpec("x", "FP16", (-1, 3))
    assert str(spec) == "x: FP16[-1, 3]"
    assert spec.dtype == np.float16
