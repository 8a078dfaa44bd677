"""No password reaches what is shown, however it is written and wherever it stands."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.errors import UnavailableError
from exporter.registry.promotion_record import PromotionRecord
from exporter.text import redaction
from exporter.text.redaction import learn, redact, redact_all, redact_each

PASSWORDS = st.text(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/@:?#%&=+!$-_.~", min_size=6
).filter(lambda text: text.strip("/.") and not text.startswith("/"))

ADDRESSES = (
    "http://joe:{}@registry.example:5000/mlflow",
    "https://joe:{}@[::1]/",
    "HTTPS://joe:{}@registry.example",
    "postgresql+psycopg://joe:{}@db.example/mlflow",
    "grpcs://joe:{}@triton.example:8001",
    "joe:{}@triton.example:8001",
    "dns:///joe:{}@triton.example:8001",
)
TEXTS = ("{}", "no answer at {}: refused", "see '{}'", '{{"url": "{}"}}', "<{}>", "a\nb {}\nc")


@settings(deadline=None)
@given(password=PASSWORDS)
def test_the_account_of_an_address_that_was_given(password: str) -> None:
    redaction._learned.clear()
    for form in ADDRESSES:
        address = form.format(password)
        learn(address)
        for text in TEXTS:
            shown = redact(text.format(address))
            assert password not in shown, (address, shown)
            assert ".example" in shown or "[::1]" in shown  # it is still said where
        if len(password) < 8:  # it may be any word
            continue
        assert password not in redact(f"refused: {password} is wrong")
        assert password not in redact(f"with {quote(password, safe='')}")
    redaction._learned.clear()


@settings(deadline=None)
@given(password=PASSWORDS)
def test_the_account_of_an_address_that_nobody_gave(password: str) -> None:
    """One from a tag, or out of another library's text, where it is written as it should be."""
    redaction._learned.clear()
    written = quote(password, safe="")
    for form in ADDRESSES:
        for text in TEXTS:
            assert written not in redact(text.format(form.format(written))), form


@pytest.mark.parametrize("password", ["pass", "mlflow", "123", "prod", "income", "promoted"])
def test_a_password_that_is_a_word_changes_no_fact(password: str) -> None:
    redaction._learned.clear()
    learn(f"postgresql://{password}:{password}@db.example/mlflow")
    learn(f"{password}@db.example:8001")
    record = {
        "status": "promoted", "model": "mlflow-income", "alias": "prod", "version": 123,
        "bundle": {"sha256": "123" * 21, "format": "onnx"},
        "parity": {"passed": True, "income": {"batching": "dynamic"}}, "kind": "parity",
    }  # fmt: skip
    assert redact_all(record) == record
    assert redact_all({"model": "income", "at": "123"}) == {"model": "income", "at": "123"}
    assert (
        json.loads(PromotionRecord("123", "runs:/123/bundle", "prod passed", 123, "123").as_tag())[
            "uri"
        ]
        == "runs:/123/bundle"
    )
    for text in ("passed", "models:/income@prod", "the model 'mlflow-iris' is in 'prod'", "12345",
                 "unpromoted"):  # fmt: skip
        assert redact(text) == text
    for text in (f"http://{password}@db.example", f"joe:{password}@db.example:8001",
                 f"no answer at {password}@db.example", f"http%3A%2F%2Fjoe%3A{password}%40db",
                 f"{password}:{password}@db.example"):  # fmt: skip
        assert password not in redact(text), text
    redaction._learned.clear()


def test_queries_and_nested_addresses() -> None:
    for text in (
        "https://bucket.example/key?X-Amz-Signature=s3cret&X-Amz-Expires=9",
        "postgresql://127.0.0.1:9/db?user=joe&password=s3cret",
        "s3://http://joe:s3cret@host:9000/bucket/models",
        "HTTPConnectionPool(host='h', port=1): url: /api/2.0/x?access_token=s3cret (Caused by x)",
    ):
        assert "s3cret" not in redact(text)


def test_what_is_no_secret_stays() -> None:
    for text in (
        "models:/scaler@prod", "runs:/0123456789abcdef/bundle", "sqlite:////home/joe/mlflow.db",
        "http://registry:5000/users/@me", "http://[::1]:5000", "ipv4:10.0.0.1:8001,10.0.0.2:8001",
        "s3://bucket/models", "joe@example.org", "version 3 of 'net': margin 0.5 (a@b)",
    ):  # fmt: skip
        assert redact(text) == text


def test_secrets_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_TOKEN", "AWS_SECRET_ACCESS_KEY", "STLAB_API_KEYS"):
        with monkeypatch.context() as patch:
            patch.setenv(name, "correct-horse,battery-staple")
            error = UnavailableError("it says battery-staple", hint="or correct-horse")
            assert "horse" not in f"{error} {error.as_dict()}"
            assert "staple" not in f"{error} {error.as_dict()}"
    # Where a secret lies is none, and a short value may be any word.
    monkeypatch.setenv("STLAB_TRITON_CERT_KEY", "/etc/tls/client.key")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "model")
    assert redact("/etc/tls/client.key of the model") == "/etc/tls/client.key of the model"


def test_each_of_several_texts() -> None:
    for texts in (
        ("http://joe:s3cret@h?x=", "next", "", "joe:"), ("s3cret@h", "a\x1fb", "joe:s3cret@h"),
        ("joe:", "s3cret@h"), (),
    ):  # fmt: skip
        assert redact_each(texts) == [redact(text) for text in texts]


def test_all_of_an_object() -> None:
    address = "http://joe:s3cret@h"
    content = {"url": address, address: [1, None, {"deep": (address, True)}]}
    assert "s3cret" not in str(redact_all(content))
    assert redact_all(content)["http://***@h"][2]["deep"] == ["http://***@h", True]


def test_no_text_takes_long() -> None:
    """A text that a server made up, of what a careless pattern would try in every way."""
    for unit in ("&key", "?token", "=a:b", "a.", "http://", "a:b@", "://@", "'a:b", ";key=", "/?"):
        for end in ("", "@x", "="):
            redact((unit * 20_000)[:60_000] + end)
