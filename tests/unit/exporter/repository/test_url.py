from __future__ import annotations

import pytest

from exporter.errors import UsageError
from exporter.repository import StoreUrl

MINIO = {"AWS_ENDPOINT_URL": "http://minio:9000"}
ACCOUNT = {"AZURE_STORAGE_ACCOUNT_NAME": "account"}


@pytest.mark.parametrize(
    ("url", "environment", "told"),
    [
        ("s3://bucket/a/models", {}, "s3://bucket/a/models"),
        ("s3://bucket/models/", {}, "s3://bucket/models"),
        ("s3://bucket/a/models", MINIO, "s3://http://minio:9000/bucket/a/models"),
        (
            "s3://bucket/models",
            {**MINIO, "AWS_ENDPOINT_URL_S3": "https://s3.example.org"},
            "s3://https://s3.example.org:443/bucket/models",
        ),
        (
            "s3://bucket/models",
            {"AWS_ENDPOINT_URL": "http://s3/"},
            "s3://http://s3:80/bucket/models",
        ),
        ("s3://http://10.0.0.1:9000/b-1/m", MINIO, "s3://http://10.0.0.1:9000/b-1/m"),
        ("s3://https://host:9000/bucket/m", {}, "s3://https://host:9000/bucket/m"),
        ("s3://https://host/bucket/m", {}, "s3://https://host:443/bucket/m"),
        ("s3://host:9000/bucket/m", {}, "s3://http://host:9000/bucket/m"),
        ("gs://bucket/models", MINIO, "gs://bucket/models"),
        ("gcs://bucket/models", {}, "gs://bucket/models"),
        ("az://container/models", ACCOUNT, "as://account/container/models"),
        ("abfs://container/models", ACCOUNT, "as://account/container/models"),
        ("abfs://container@other.dfs.core.windows.net/m", ACCOUNT, "as://other/container/m"),
        ("as://account/container/a/models", {}, "as://account/container/a/models"),
    ],
)
def test_what_a_server_is_told(url: str, environment: dict[str, str], told: str) -> None:
    address = StoreUrl.parse(url, environment)
    assert address.for_server() == told
    assert StoreUrl.parse(told, {}) == address, "written so, it is the same"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("https://host/models", "neither a folder nor on a store"),
        ("file:///models", "neither a folder nor on a store"),
        ("s3://bucket", "has no prefix"),
        ("s3://bucket/", "has no prefix"),
        ("s3://http://host:9000/bucket", "has no prefix"),
        ("gs://bucket", "has no prefix"),
        ("s3://", "misread"),
        ("s3:///models", "misread"),
        ("s3://bucket/a/../b", "misread"),
        ("s3://bucket/./b", "misread"),
        ("s3://bucket/a//b", "misread"),
        ("s3://bucket/a b", "misread"),
        ("s3://bucket/a?versionId=1", "misread"),
        ("s3://Bucket/models", "misread"),
        ("s3://key:guarded@bucket/models", "misread"),
        ("s3://http://key:guarded@host:9000/bucket/models", "http://host:port"),
    ],
)
def test_what_is_no_repository(url: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        StoreUrl.parse(url, {})
    assert caught.value.hint
    assert "guarded" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize(
    "endpoint", ["host:9000", "http://host/path", "http://key:guarded@host:9000", "http://[::1]:9"]
)
def test_an_endpoint_that_triton_cannot_be_told(endpoint: str) -> None:
    with pytest.raises(UsageError, match="the S3 endpoint in AWS_ENDPOINT_URL ") as caught:
        StoreUrl.parse("s3://bucket/models", {"AWS_ENDPOINT_URL": endpoint})
    assert "guarded" not in caught.value.message


def test_triton_must_know_the_account() -> None:
    address = StoreUrl.parse("az://container/models", {})
    with pytest.raises(UsageError, match="lacks the storage account"):
        address.for_server()


def test_a_server_gets_the_names_that_it_knows_and_no_other_secret() -> None:
    environment = {
        "MLFLOW_TRACKING_TOKEN": "of the registry",
        "AWS_SESSION_TOKEN": "of another store",
        "AZURE_STORAGE_ACCOUNT_KEY": "key",
        "HTTPS_PROXY": "http://proxy:3128",
    }
    told = StoreUrl.parse("as://account/container/m", {}).server_environment(environment)
    assert told == {
        "AZURE_STORAGE_ACCOUNT_KEY": "key",
        "AZURE_STORAGE_KEY": "key",
        "AZURE_STORAGE_ACCOUNT": "account",
        "HTTPS_PROXY": "http://proxy:3128",
    }
    environment = {
        "AWS_REGION": "eu-north-1",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }
    told = StoreUrl.parse("s3://bucket/m", {}).server_environment(environment)
    assert told == {**environment, "AWS_DEFAULT_REGION": "eu-north-1"}
