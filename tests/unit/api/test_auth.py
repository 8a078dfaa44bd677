"""Keys, and tokens of an issuer whose keys lie on a real HTTP server."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from exporter.errors import UsageError
from stlab_api.auth import make_authenticator
from stlab_api.problems import Problem
from tests.unit.api.fakes import finished, running, settings_of

ISSUER, AUDIENCE = "https://issuer.example", "models"
RSA = rsa.generate_private_key(65537, 2048)
OTHER_RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())


def jwk(key: Any, kid: str) -> dict[str, Any]:
    algorithm = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else None
    algorithm = algorithm or jwt.algorithms.ECAlgorithm
    made: dict[str, Any] = algorithm.to_jwk(key.public_key(), as_dict=True)
    return {**made, "kid": kid, "use": "sig"}


class Issuer:
    """What publishes keys.

    Attributes:
        page: Its keys.
        pages: What it answers by path; the keys on any other.
        status: The status that it answers with.
        delay: The seconds before each byte.
        asked: The paths that it was asked for.
    """

    def __init__(self) -> None:
        self.publish(jwk(RSA, "rsa-1"), jwk(EC, "ec-1"))
        self.status = 200
        self.delay = 0.0
        self.pages: dict[str, Any] = {}
        self.asked: list[str] = []
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked.append(self.path)
                page = json.dumps(issuer.pages.get(self.path, None)).encode()
                page = page if self.path in issuer.pages else issuer.page
                self.send_response(issuer.status)
                self.send_header("content-length", str(len(page)))
                self.end_headers()
                if not issuer.delay:
                    self.wfile.write(page)
                    return
                with suppress(OSError):
                    for place in range(len(page)):
                        time.sleep(issuer.delay)
                        self.wfile.write(page[place : place + 1])

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.jwks = f"{self.url}/keys"

    def publish(self, *keys: dict[str, Any]) -> None:
        self.page = json.dumps({"keys": keys}).encode()

    def close(self) -> None:
        if self._thread.is_alive():
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    issuer = Issuer()
    yield issuer
    issuer.close()


def token(
    key: Any = RSA, kid: str | None = "rsa-1", algorithm: str = "RS256", **changed: Any
) -> str:
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": AUDIENCE, "exp": now + 60, "sub": "somebody", **changed}
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(claims, key, algorithm, headers={} if kid is None else {"kid": kid})


def forged(header: dict[str, Any], secret: bytes | None = None, **changed: Any) -> str:
    def part(value: bytes) -> bytes:
        return base64.urlsafe_b64encode(value).rstrip(b"=")

    claims = {"iss": ISSUER, "aud": AUDIENCE, "exp": int(time.time()) + 60, **changed}
    signed = b".".join(part(json.dumps(value).encode()) for value in (header, claims))
    signature = b"" if secret is None else hmac.digest(secret, signed, hashlib.sha256)
    return (signed + b"." + part(signature)).decode()


def asked(headers: dict[str, str], path: str = "/v1/models/toy", **settings: Any) -> httpx.Response:
    async def ask() -> httpx.Response:
        async with running(**settings) as toy:
            return await toy.client.get(path, headers=headers)

    answer: httpx.Response = finished(ask())
    return answer


def with_token(issuer: Issuer, given: str, **settings: Any) -> httpx.Response:
    return asked(
        {"authorization": f"Bearer {given}"},
        **{
            "oidc_issuer": ISSUER,
            "oidc_audience": AUDIENCE,
            "oidc_jwks_url": issuer.jwks,
            **settings,
        },
    )


def refused(answer: httpx.Response) -> None:
    assert answer.status_code == 401, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "urn:stlab:problem:unauthorized"
    assert "version" not in answer.json()


def test_without_a_setting_everybody_may_ask() -> None:
    assert asked({}).status_code == 200


def test_a_known_key_lets_in() -> None:
    for key in ("one", "two"):
        assert asked({"x-api-key": key}, keys="one, two,").status_code == 200


def test_another_key_does_not() -> None:
    async def ask() -> None:
        async with running(keys="one, two") as toy:
            for key in (None, "", "on", "onee", "ONE", "one, two", "one,", "é"):
                headers = {} if key is None else {"x-api-key": key.encode()}
                answer = await toy.client.get("/v1/models/toy", headers=headers)
                refused(answer)
                assert "X-API-Key" in answer.json()["detail"]
                assert "one" not in answer.text.replace("known", "")

    finished(ask())


def test_a_refused_request_reaches_no_model() -> None:
    async def ask() -> None:
        async with running(keys="one", max_body_bytes=10) as toy:
            answer = await toy.predict()
            refused(answer)  # not 413: a stranger learns no limits
            assert not toy.backend.opened[0].asked

    finished(ask())


def test_health_and_documents_are_open() -> None:
    for path in ("/health/live", "/health/ready", "/metrics", "/openapi.json", "/docs"):
        assert asked({}, path, keys="one").status_code == 200


def test_everything_else_is_not() -> None:
    for path in ("/nowhere", "/docs/x", "/health", "/v1/models/other"):
        refused(asked({}, path, keys="one"))


@pytest.mark.parametrize(
    ("key", "kid", "algorithm"), [(RSA, "rsa-1", "RS256"), (EC, "ec-1", "ES256")]
)
def test_a_good_token_lets_in(issuer: Issuer, key: Any, kid: str, algorithm: str) -> None:
    assert with_token(issuer, token(key, kid, algorithm)).status_code == 200
    assert issuer.asked == ["/keys"]


CONFIGURATION = ".well-known/openid-configuration"
# As these issuers lay themselves out: below the server's root, the issuer and where its keys are.
LAYOUTS = {
    "Keycloak": ("/realms/demo", "/realms/demo/protocol/openid-connect/certs"),
    "Entra": ("/9188040d-6c67/v2.0", "/9188040d-6c67/discovery/v2.0/keys"),
    "Google": ("", "/oauth2/v3/certs"),
    "Auth0": ("/", "/.well-known/jwks.json"),
}


def laid_out(issuer: Issuer, kind: str, changed: dict[str, Any] | None = None) -> str:
    """Have an issuer publish its configuration, and return its name."""
    path, keys = LAYOUTS[kind]
    name = f"{issuer.url}{path}"
    told = {
        "issuer": name,
        "jwks_uri": f"{issuer.url}{keys}",
        "id_token_signing_alg_values_supported": ["RS256", "ES256", "HS256"],
        **(changed or {}),
    }
    issuer.pages[f"{path.rstrip('/')}/{CONFIGURATION}"] = told
    return name


def discovered(issuer: Issuer, name: str, given: str) -> httpx.Response:
    return with_token(issuer, given, oidc_issuer=name, oidc_jwks_url="")


@pytest.mark.parametrize("kind", LAYOUTS)
def test_keys_are_found_by_the_issuers_configuration(issuer: Issuer, kind: str) -> None:
    name = laid_out(issuer, kind)
    encryption = {**jwk(OTHER_RSA, "rsa-2"), "use": "enc", "alg": "RSA-OAEP"}
    issuer.publish(encryption, {"kty": "new", "kid": "x"}, jwk(RSA, "rsa-1"))
    assert discovered(issuer, name, token(iss=name)).status_code == 200
    path, keys = LAYOUTS[kind]
    assert issuer.asked == [f"{path.rstrip('/')}/{CONFIGURATION}", keys]
    refused(discovered(issuer, name, token(OTHER_RSA, "rsa-2", iss=name)))
    refused(discovered(issuer, name, token(iss=f"{name}x")))


def test_a_configuration_that_cannot_be_trusted_is_not_used(issuer: Issuer) -> None:
    for changed in (
        {"issuer": "https://other.example"},
        {"issuer": None},
        {"jwks_uri": "http://issuer.example/keys"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": ["https://issuer.example"]},
        {"id_token_signing_alg_values_supported": ["HS256", "none"]},
    ):
        name = laid_out(issuer, "Keycloak", changed)
        unavailable(discovered(issuer, name, token(iss=name)))


def test_algorithms_that_the_issuer_does_not_use_are_refused(issuer: Issuer) -> None:
    name = laid_out(issuer, "Keycloak")
    refused(discovered(issuer, name, token(RSA, "rsa-1", "PS256", iss=name)))
    issuer.publish({**jwk(RSA, "rsa-1"), "alg": "RS256"}, jwk(EC, "ec-1"))
    refused(with_token(issuer, token(RSA, "rsa-1", "RS512")))
    assert with_token(issuer, token()).status_code == 200


def test_keys_never_come_over_an_open_network() -> None:
    for settings in (
        {"oidc_issuer": "http://issuer.example"},
        {"oidc_issuer": "issuer.example"},
        {"oidc_issuer": ISSUER, "oidc_jwks_url": "http://issuer.example/keys"},
        {"oidc_issuer": ISSUER, "oidc_jwks_url": "file:///keys"},
    ):
        with pytest.raises(UsageError, match="https://"):
            make_authenticator(settings_of(**settings))


def test_clocks_may_differ_a_little(issuer: Issuer) -> None:
    now = int(time.time())
    assert with_token(issuer, token(exp=now - 5, nbf=now + 5)).status_code == 200


def test_keys_may_be_exchanged(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    guard = make_authenticator(
        settings_of(oidc_issuer=ISSUER, oidc_audience=AUDIENCE, oidc_jwks_url=issuer.jwks)
    )
    assert guard is not None

    async def ask(given: str) -> None:
        await guard(lambda _: f"Bearer {given}")

    async def rotate() -> None:
        await ask(token())
        issuer.publish(jwk(OTHER_RSA, "rsa-2"))
        # Tokens with made-up keys do not make it ask the issuer again and again.
        for number in range(20):
            with pytest.raises(Problem):
                await ask(token(OTHER_RSA, f"made-up-{number}"))
        assert issuer.asked == ["/keys"]
        monkeypatch.setattr("stlab_api.oidc._UNKNOWN_SECONDS", 0.0)
        await ask(token(OTHER_RSA, "rsa-2"))
        with pytest.raises(Problem) as caught:
            await ask(token())
        assert caught.value.status == 401

    finished(rotate())


def test_an_issuer_that_drips_is_not_waited_for(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stlab_api.oidc._FETCH_SECONDS", 0.3)
    issuer.delay = 0.1
    unavailable(with_token(issuer, token()))


def test_an_issuer_that_answers_without_end_is_not_read_to_it(issuer: Issuer) -> None:
    issuer.page = b" " * (2 * 1024 * 1024) + issuer.page
    unavailable(with_token(issuer, token()))


def test_many_requests_ask_the_issuer_once(issuer: Issuer) -> None:
    async def ask() -> None:
        settings = {"oidc_audience": AUDIENCE, "oidc_jwks_url": issuer.jwks}
        async with running(oidc_issuer=ISSUER, **settings) as toy:
            headers = {"authorization": f"Bearer {token()}"}
            answers = await asyncio.gather(*(toy.predict(headers=headers) for _ in range(20)))
            assert {answer.status_code for answer in answers} == {200}
            assert issuer.asked == ["/keys"]

    finished(ask())


def test_without_an_audience_any_is_taken(issuer: Issuer) -> None:
    assert with_token(issuer, token(aud="others"), oidc_audience="").status_code == 200


def test_one_audience_of_several_is_enough(issuer: Issuer) -> None:
    assert with_token(issuer, token(aud=["others", AUDIENCE])).status_code == 200


def test_a_token_for_something_else_is_refused(issuer: Issuer) -> None:
    for changed in (
        {"exp": int(time.time()) - 60},
        {"exp": None},
        {"nbf": int(time.time()) + 600},
        {"iss": "https://other.example"},
        {"iss": None},
        {"aud": "others"},
        {"aud": None},
    ):
        answer = with_token(issuer, token(**changed))
        refused(answer)
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "the token is refused" in answer.json()["detail"]


def test_a_token_of_another_key_is_refused(issuer: Issuer) -> None:
    refused(with_token(issuer, token(OTHER_RSA)))
    refused(with_token(issuer, token(kid="rsa-2")))
    refused(with_token(issuer, token(kid=None)))


def test_a_token_without_a_signature_is_refused(issuer: Issuer) -> None:
    for algorithm in ("none", "None", "NONE"):
        for kid in ({"kid": "rsa-1"}, {}):
            refused(with_token(issuer, forged({"alg": algorithm, "typ": "JWT", **kid})))


def test_the_public_key_is_no_secret_to_sign_with(issuer: Issuer) -> None:
    public = RSA.public_key()
    for encoding, form in (
        (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
        (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo),
    ):
        secret = public.public_bytes(encoding, form)
        header = {"alg": "HS256", "typ": "JWT", "kid": "rsa-1"}
        refused(with_token(issuer, forged(header, secret)))


def test_an_algorithm_that_is_not_the_keys_is_refused(issuer: Issuer) -> None:
    for key, kid, algorithm in ((EC, "rsa-1", "ES256"), (RSA, "ec-1", "RS256")):
        refused(with_token(issuer, token(key, kid, algorithm)))


def test_what_is_no_token_is_refused(issuer: Issuer) -> None:
    async def ask() -> None:
        async with running(oidc_issuer=ISSUER, oidc_jwks_url=issuer.jwks) as toy:
            for given in ("", "x", "a.b.c", "a.b", "ä", "." * 10_000, "e30.e30.e30"):
                headers = {"authorization": f"Bearer {given}".encode()}
                refused(await toy.client.get("/v1/models/toy", headers=headers))

    finished(ask())


def test_a_key_id_that_is_no_text_is_refused(issuer: Issuer) -> None:
    for kid in (1, None, [], {"a": 1}, ["rsa-1"]):
        refused(with_token(issuer, forged({"alg": "RS256", "kid": kid}, b"secret")))


@pytest.mark.parametrize("scheme", ["", "Basic ", "Token "])
def test_another_scheme_is_refused(issuer: Issuer, scheme: str) -> None:
    answer = asked(
        {"authorization": f"{scheme}{token()}"}, oidc_issuer=ISSUER, oidc_jwks_url=issuer.jwks
    )
    refused(answer)
    assert answer.headers["www-authenticate"] == "Bearer"


def test_the_word_bearer_may_be_written_small(issuer: Issuer) -> None:
    answer = asked(
        {"authorization": f"bearer {token()}"},
        oidc_issuer=ISSUER,
        oidc_audience=AUDIENCE,
        oidc_jwks_url=issuer.jwks,
    )
    assert answer.status_code == 200


def unavailable(answer: httpx.Response) -> None:
    assert answer.status_code == 503, answer.text
    assert answer.json()["type"] == "urn:stlab:problem:unavailable"
    assert "issuer" in answer.json()["detail"]


def test_an_issuer_that_is_away_is_no_fault_of_the_token(issuer: Issuer) -> None:
    issuer.close()
    unavailable(with_token(issuer, token()))


def test_an_issuer_that_answers_nonsense_is_no_fault_of_the_token(issuer: Issuer) -> None:
    for status, page in (
        (500, b"{}"),
        (404, b""),
        (200, b"<html>sorry</html>"),
        (200, b"[]"),
        (200, b'{"keys": []}'),
        (200, b'{"keys": [1, {"kty": "RSA", "kid": "rsa-1", "n": 1}]}'),
    ):
        issuer.status, issuer.page = status, page
        unavailable(with_token(issuer, token()))


def test_keys_are_fetched_once_for_many_requests(issuer: Issuer) -> None:
    async def ask() -> None:
        settings = {"oidc_audience": AUDIENCE, "oidc_jwks_url": issuer.jwks}
        async with running(oidc_issuer=ISSUER, **settings) as toy:
            for given in (token(), token(EC, "ec-1", "ES256"), token()):
                headers = {"authorization": f"Bearer {given}"}
                assert (await toy.predict(headers=headers)).status_code == 200
            assert issuer.asked == ["/keys"]
            # Keys that are known outlive the issuer.
            issuer.close()
            headers = {"authorization": f"Bearer {token()}"}
            assert (await toy.predict(headers=headers)).status_code == 200

    finished(ask())


def test_keys_that_were_withdrawn_are_forgotten(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard = make_authenticator(
        settings_of(oidc_issuer=ISSUER, oidc_audience=AUDIENCE, oidc_jwks_url=issuer.jwks)
    )
    assert guard is not None

    def header(_: bytes) -> str:
        return f"Bearer {token()}"

    async def ask() -> None:
        await guard(header)
        page = issuer.page
        issuer.publish(jwk(EC, "ec-1"))
        monkeypatch.setattr("stlab_api.oidc._FRESH_SECONDS", 0.0)
        with pytest.raises(Problem) as caught:
            await guard(header)
        assert caught.value.status == 401
        issuer.page = page
        await guard(header)
        # While the issuer is away its keys are good for an hour, and not for ever.
        issuer.close()
        await guard(header)
        monkeypatch.setattr("stlab_api.oidc._STALE_SECONDS", 0.0)
        with pytest.raises(Problem) as caught:
            await guard(header)
        assert caught.value.status == 503

    finished(ask())
