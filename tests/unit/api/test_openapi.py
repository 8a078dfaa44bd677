"""The OpenAPI document, as it is published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.api.fakes import FakeBackend, FakePredictor, finished, model_spec, running
from triton_client.types import TensorSpec

SNAPSHOT = Path(__file__).with_name("openapi.json")
RENEW = "python -m tests.unit.api.test_openapi"
TOY = model_spec(
    inputs=(
        TensorSpec("dense/in:0", "FP32", (-1, 2)),
        TensorSpec("count", "UINT8", (-1, -1)),
        TensorSpec("big", "INT64", (-1, 1)),
        TensorSpec("flag", "BOOL", (-1, 1)),
        TensorSpec("half", "FP16", (-1, 1)),
        TensorSpec("word", "BYTES", (-1, 1)),
        TensorSpec("maybe", "FP64", (-1, 1), optional=True),
    )
)
INCOME = model_spec(
    "income",
    inputs=(TensorSpec("history", "FP32", (-1, 48, 10)),),
    outputs=(TensorSpec("forecast", "FP32", (-1, 48, 3)),),
)


def _answering(predictor: FakePredictor) -> None:
    name, first = ("forecast", "history") if predictor.spec is INCOME else ("y", "dense/in:0")
    predictor.answer = lambda given: {name: np.asarray(given[first])[..., :3]}


def backend(**specs: Any) -> FakeBackend:
    return FakeBackend(
        specs=specs or {"toy": TOY, "income": INCOME},
        alias=dict.fromkeys(specs or ("toy", "income"), 1),
        make=_answering,
    )


async def _document(fakes: FakeBackend, **settings: Any) -> dict[str, Any]:
    async with running(fakes, MLFLOW_MODEL_NAME=",".join(fakes.specs), **settings) as service:
        document: dict[str, Any] = (await service.client.get("/openapi.json")).json()
        return document


def _written(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def test_the_document_is_the_one_that_was_published() -> None:
    """Renew it with ``python -m tests.unit.api.test_openapi`` and read the difference."""
    document = finished(_document(backend()))
    assert document == json.loads(SNAPSHOT.read_text()), f"where this is meant: {RENEW}"


def test_the_document_is_valid() -> None:
    import openapi_spec_validator as validator

    validator.validate(json.loads(SNAPSHOT.read_text()))


def _examples(document: dict[str, Any]) -> list[tuple[str, Any]]:
    found = []
    for path, methods in document["paths"].items():
        if "post" not in methods:
            continue
        content = methods["post"]["requestBody"]["content"]["application/json"]
        schema = document["components"]["schemas"][content["schema"]["$ref"].rsplit("/", 1)[1]]
        given = [content["example"]] if "example" in content else schema["examples"]
        found += [(path, example) for example in given]
    return found


def test_its_examples_are_answered() -> None:
    async def run() -> None:
        fakes = backend()
        async with running(fakes, MLFLOW_MODEL_NAME="toy,income") as service:
            examples = _examples((await service.client.get("/openapi.json")).json())
            assert {path for path, _ in examples} == {
                "/v1/models/toy/predict",
                "/v1/models/income/predict",
                "/v1/income/forecast",
            }
            for path, example in examples:
                answer = await service.client.post(path, json=example)
                assert answer.status_code == 200, (path, answer.text)

    finished(run())


def test_every_path_of_the_document_is_there() -> None:
    async def run() -> None:
        async with running(backend(), MLFLOW_MODEL_NAME="toy,income") as service:
            document = (await service.client.get("/openapi.json")).json()
            for path, methods in document["paths"].items():
                for method in methods:
                    answer = await service.client.request(method.upper(), path)
                    assert answer.status_code not in {404, 405}, path
                    known = methods[method]["responses"]
                    assert str(answer.status_code) in known, (path, answer.status_code)

    finished(run())


def test_a_request_is_described_by_the_names_and_limits_of_the_model() -> None:
    schemas = finished(_document(backend()))["components"]["schemas"]
    (inputs,) = [s for s in schemas.values() if "dense/in:0" in s.get("properties", {})]
    assert inputs["additionalProperties"] is False
    assert set(inputs["required"]) == {t.name for t in TOY.inputs} - {"maybe"}
    row = inputs["properties"]["dense/in:0"]
    assert (row["minItems"], row["maxItems"]) == (1, 1024)
    assert (row["items"]["minItems"], row["items"]["maxItems"]) == (2, 2)
    number = inputs["properties"]["count"]["items"]["items"]
    assert (number["type"], number["minimum"], number["maximum"]) == ("integer", 0, 255)


def test_the_document_follows_the_version_that_answers() -> None:
    async def run() -> None:
        fakes = backend(toy=model_spec())
        fakes.make = lambda _: None
        async with running(fakes) as service:
            before = (await service.client.get("/openapi.json")).text
            fakes.specs["toy"] = TOY
            fakes.make = _answering
            fakes.alias["toy"] = 2
            await service.follow()
            after = (await service.client.get("/openapi.json")).text
            assert "dense/in:0" not in before
            assert "dense/in:0" in after

    finished(run())


def test_what_is_not_loaded_is_not_described() -> None:
    async def run() -> None:
        fakes = backend(toy=TOY)
        fakes.look_error = RuntimeError("away")
        async with running(fakes) as service:
            answer = await service.client.get("/openapi.json")
            assert answer.status_code == 200
            assert "/v1/models/toy/predict" not in answer.json()["paths"]

    finished(run())


@pytest.mark.parametrize("names", [("my-model", "my_model"), ("fooBar", "foobar")])
def test_models_of_similar_names_are_not_mixed_up(names: tuple[str, str]) -> None:
    specs = {
        name: model_spec(name, inputs=(TensorSpec(f"input of {name}", "FP32", (-1, 2)),))
        for name in names
    }
    fakes = backend(**specs)
    fakes.make = lambda p: setattr(p, "answer", lambda given: {"y": next(iter(given.values()))})
    document = finished(_document(fakes))
    schemas = document["components"]["schemas"]

    def resolved(schema: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = schemas[schema["$ref"].rsplit("/", 1)[1]]
        return found

    for name in names:
        post = document["paths"][f"/v1/models/{name}/predict"]["post"]
        request = resolved(post["requestBody"]["content"]["application/json"]["schema"])
        assert list(resolved(request["properties"]["inputs"])["properties"]) == [f"input of {name}"]


@pytest.mark.parametrize(
    ("settings", "scheme"),
    [
        ({}, None),
        ({"keys": "a"}, {"type": "apiKey", "in": "header", "name": "X-API-Key"}),
        ({"oidc_issuer": "https://issuer.example"}, {"type": "http", "scheme": "bearer"}),
    ],
    ids=["open", "keys", "tokens"],
)
def test_it_says_who_may_ask(settings: dict[str, str], scheme: dict[str, str] | None) -> None:
    document = finished(_document(backend(), **settings))
    schemes = document["components"].get("securitySchemes", {})
    assert list(schemes.values()) == ([] if scheme is None else [scheme])
    assert document.get("security", []) == [{name: []} for name in schemes]


if __name__ == "__main__":
    SNAPSHOT.write_text(_written(finished(_document(backend()))))
