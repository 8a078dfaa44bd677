"""How much of a model the proof has seen, and what is promoted on little."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import infer_signature

from exporter.arrays import read_npz
from exporter.commands.export.result import ExportResult
from exporter.commands.status.command import StatusRequest, status
from exporter.parity.samples import load_arrays
from tests.support.models import ROWS, times
from tests.support.registering import RegistryFixture
from tests.support.zoo_exports import build_in_this_process
from tests.zoo.blind_spots import BLIND_SPOTS

sklearn = pytest.importorskip("sklearn")

from sklearn.compose import make_column_transformer  # noqa: E402
from sklearn.ensemble import RandomForestClassifier  # noqa: E402
from sklearn.impute import SimpleImputer  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import OneHotEncoder, StandardScaler  # noqa: E402

pytestmark = pytest.mark.triton


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    build_in_this_process(monkeypatch)


@pytest.fixture(scope="module")
def passengers() -> pd.DataFrame:
    random = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "Sex": random.choice(["male", "female"], 300),
            "Embarked": random.choice(["S", "C", "Q"], 300),
            "Age": random.uniform(1, 80, 300),
            "Fare": random.uniform(5, 500, 300),
        }
    )


def register(
    lab: RegistryFixture, name: str, passengers: pd.DataFrame, example: pd.DataFrame | None
) -> None:
    """Log a pipeline that survives by sex and fare."""
    survived = ((passengers.Sex == "female") & (passengers.Fare > 50)).astype(int)
    columns = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["Sex", "Embarked"]),
        (make_pipeline(SimpleImputer(), StandardScaler()), ["Age", "Fare"]),
    )
    forest = RandomForestClassifier(8, max_depth=4, random_state=0)
    model = make_pipeline(columns, forest).fit(passengers, survived)
    with lab._logging():
        mlflow.sklearn.log_model(
            model,
            name="model",
            signature=infer_signature(passengers.head(3), model.predict(passengers.head(3))),
            input_example=example,
            serialization_format="cloudpickle",
            registered_model_name=name,
            pip_requirements=["scikit-learn"],
        )


def exported(lab: RegistryFixture, name: str, alias: str = "staging", **more: Any) -> ExportResult:
    return lab.export(name, alias, allow_pickle=True, **more)


def test_an_example_of_one_kind_of_row_hides_no_category(
    lab: RegistryFixture, passengers: pd.DataFrame
) -> None:
    men = passengers[(passengers.Sex == "male") & (passengers.Embarked == "S")].head(2)
    register(lab, "men", passengers, men)
    result = exported(lab, "men")
    assert result.status == "promoted", result.error
    parity = result.parity or {}
    assert parity["strength"] == "strong", parity["warnings"]
    assert parity["coverage"]["categories"] == {"seen": 5, "known": 5}
    assert parity["coverage"]["classes"] == {"seen": 2, "known": 2}
    assert parity["coverage"]["leaves"]["seen"] > parity["coverage"]["leaves"]["known"] / 2
    kept = load_arrays(lab.folder / "repository" / "men" / "1" / "samples.npz")
    asked = {
        column: {
            word.decode()
            for key, array in kept.items()
            if key.endswith(f"input/{column}")
            for word in array.ravel()
        }
        for column in ("Sex", "Embarked")
    }
    assert {"male", "female"} < asked["Sex"]
    assert {"S", "C", "Q", ""} < asked["Embarked"]
    assert any(np.isnan(array).any() for key, array in kept.items() if key.endswith("input/Age"))
    report = json.loads((lab.folder / "repository" / "men" / "1" / "report.json").read_text())
    assert report["parity"]["coverage"] == parity["coverage"]


def test_prod_refuses_weak_evidence(lab: RegistryFixture, passengers: pd.DataFrame) -> None:
    register(lab, "unseen", passengers, None)
    staged = exported(lab, "unseen")
    assert staged.status == "promoted", staged.error
    parity = staged.parity or {}
    assert parity["strength"] == "weak"
    assert "input_example" in parity["warnings"][0]
    tags = lab.client.get_model_version("unseen", "1").tags
    assert tags["stlab.parity.strength"] == "weak"
    (state,) = (
        status(StatusRequest("unseen", repository="repository", tracking_uri=lab.uri))
        .models[0]
        .aliases
    )
    assert state.strength == "weak"

    refused = exported(lab, "unseen", "prod")
    assert (refused.exit_code, (refused.error or {})["kind"]) == (3, "evidence")
    assert "--allow-weak-evidence" in (refused.error or {})["hint"]
    assert lab.alias("unseen", "prod") is None

    allowed = exported(lab, "unseen", "prod", allow_weak_evidence=True)
    assert allowed.status == "promoted", allowed.error
    record = json.loads(lab.client.get_model_version("unseen", "1").tags["stlab.promoted.prod"])
    assert "--allow-weak-evidence" in record["reason"]


def test_samples_strengthen_weak_evidence(
    lab: RegistryFixture, passengers: pd.DataFrame, tmp_path: Path
) -> None:
    register(lab, "strengthened", passengers, None)
    rows = passengers.sample(200, random_state=1)
    samples = tmp_path / "samples.npz"
    np.savez(samples, **{name: rows[[name]].to_numpy() if rows[name].dtype == float
                         else rows[[name]].to_numpy().astype("S8") for name in rows})  # fmt: skip
    assert set(read_npz(samples)) == set(rows)
    result = exported(lab, "strengthened", samples=samples)
    assert result.status == "promoted", result.error
    assert (result.parity or {})["strength"] == "strong", result.parity


def test_a_shop_may_require_more(lab: RegistryFixture, passengers: pd.DataFrame) -> None:
    register(lab, "required", passengers, passengers.head(3))
    refused = exported(lab, "required", require_coverage=1.0)
    assert (refused.exit_code, (refused.error or {})["kind"]) == (3, "evidence")
    assert "leaves" in (refused.error or {})["message"]
    assert lab.alias("required") is None
    assert exported(lab, "required", require_coverage=0.5).status == "promoted"


def test_answers_to_what_the_registered_model_refuses_are_a_warning(
    lab: RegistryFixture, passengers: pd.DataFrame
) -> None:
    numbers = passengers[["Age", "Fare"]]
    model = LogisticRegression().fit(numbers, numbers.Fare > 100)
    with lab._logging():
        mlflow.sklearn.log_model(
            model,
            name="model",
            signature=infer_signature(numbers, model.predict(numbers)),
            input_example=numbers.head(3),
            serialization_format="cloudpickle",
            registered_model_name="no-holes",
            pip_requirements=["scikit-learn"],
        )
    parity = exported(lab, "no-holes").parity or {}
    assert parity["strength"] == "strong"
    assert "missing values in 'Age'; missing values in 'Fare'" in parity["warnings"][0]
    # Of sizes it says more: a program may compute something else beyond its bounds.
    (bounded,) = (model for model in BLIND_SPOTS if model.name == "beyond-64-pt2")
    bounded.register()
    parity = exported(lab, bounded.name).parity or {}
    assert parity["strength"] == "weak"
    assert "axes of size 65" in parity["warnings"][0]


def test_one_answer_for_every_input_is_weak(lab: RegistryFixture) -> None:
    lab.register_onnx("constant", times(0.0), example=ROWS)
    result = lab.export("constant")
    assert result.status == "promoted", result.error
    parity = result.parity or {}
    assert parity["strength"] == "weak"
    assert "is the same" in parity["warnings"][0]
