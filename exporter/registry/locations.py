"""Resolve the address of artifacts, and reject one that is neither the registry's nor allowed.

Anyone who may edit a model can write tags and the sources of versions. Whatever address they hold,
requests with credentials go only to these:

| address | followed |
|---|---|
| ``runs:/``, ``models:/`` | to where the registry stores the run's or model's artifacts |
| ``mlflow-artifacts:/``, ``http(s)://`` | where host and port are the registry's own |
| ``s3://``, ``gs://``, ``wasbs://``, ``abfss://`` | the bucket of an experiment of the registry |
| folders, ``file:`` | where the registry itself is a file on this machine |
| | of a server on this machine: what its ``--default-artifact-root`` holds |
| ``STLAB_ARTIFACT_STORES`` | further stores that the operator allows |

The returned address is rebuilt from the parts that were checked, so that MLflow cannot parse it
differently.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from exporter.errors import ConflictError
from exporter.registry.bounds import allowed_stores, origin
from exporter.registry.errors import NOT_FOUND
from exporter.text.redaction import redact
from exporter.triton.addresses import is_loopback

if TYPE_CHECKING:
    from exporter.registry.client import Registry

__all__ = ["check_location", "locate"]

_MAX_HOPS = 8
_ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
_ID = r"[A-Za-z0-9_\-]{1,64}"
_RUN = re.compile(rf"runs:/({_ID})(/.*)?")
_LOGGED_MODEL = re.compile(rf"models:/({_ID})(/.*)?")
_VERSION = re.compile(r"models:/([^/@]+)/([1-9]\d*)(/.*)?")
_ALIAS = re.compile(r"models:/([^/@]+)@([^/@]+)(/.*)?")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+):")
_HOSTILE = re.compile(r"[\x00-\x1f\x7f\\]")
# The host that a client connects to follows from these names alone.
_BUCKETS = {
    "s3": re.compile(r"[\w.\-:]+"),
    "gs": re.compile(r"[\w.\-]+"),
    "wasbs": re.compile(
        r"[\w$\-]+@[\w\-]+\.blob\.core\.(windows\.net|chinacloudapi\.cn|usgovcloudapi\.net)"
    ),
    "abfss": re.compile(
        r"[\w$\-]+@[\w\-]+\.dfs\.core\.(windows\.net|chinacloudapi\.cn|usgovcloudapi\.net)"
    ),
}


def locate(registry: Registry, address: str, what: str) -> str:
    """Resolve an address of a registry to a location for MLflow's artifact repositories.

    Raises:
        ConflictError: The location must not be accessed; the kind is ``address``.
    """
    current = _lower(address)
    for _ in range(_MAX_HOPS):
        target = _resolve(registry.client, current)
        if target is None:
            return check_location(registry, current, what)
        current = _lower(target)
    raise _not_followed(registry.uri, address, what)


def check_location(registry: Registry, address: str, what: str) -> str:
    """Return a location that may be read and written, as MLflow takes it.

    Raises:
        ConflictError: The location must not be accessed; the kind is ``address``.
    """
    scheme = _scheme(address)
    found = None
    if scheme in {"", "file"}:
        found = _folder(registry, address)
    elif not _HOSTILE.search(address):
        if scheme in {"http", "https", "mlflow-artifacts"}:
            found = _proxied(registry.uri, address)
        elif scheme in _BUCKETS:
            found = _bucket(registry, address)
        if found is None and any(_within(address, store) for store in allowed_stores()):
            found = address
    if found is None:
        raise _not_followed(registry.uri, address, what)
    return found


def _resolve(client: Any, address: str) -> str | None:
    """Return the address that the registry has for one of its own; None for any other address."""
    if found := _RUN.fullmatch(address):
        root = client.get_run(found[1]).info.artifact_uri
    elif found := _VERSION.fullmatch(address):
        root = client.get_model_version_download_uri(found[1], found[2])
    elif found := _ALIAS.fullmatch(address):
        version = int(client.get_model_version_by_alias(found[1], found[2]).version)
        root = f"models:/{found[1]}/{version}"
    elif found := _LOGGED_MODEL.fullmatch(address):
        root = client.get_logged_model(found[1]).artifact_location
    else:
        return None
    return f"{str(root).rstrip('/')}{found[found.re.groups] or ''}"


def _folder(registry: Registry, address: str) -> str | None:
    """Return a folder if the registry is on this machine, or the operator allows it."""
    path = _path(address)
    if path is None:
        return None
    if _scheme(registry.uri) in {"", "file"} or _scheme(registry.uri).startswith("sqlite"):
        return path.as_uri()
    allowed = [Path(store) for store in allowed_stores() if not _scheme(store)]
    if is_loopback(urlsplit(registry.uri).hostname or "", unspecified=True):
        allowed += _default_root(registry)
    within = any(path.resolve().is_relative_to(one.resolve()) for one in allowed)
    return path.as_uri() if within else None


def _path(address: str) -> Path | None:
    from mlflow.utils.file_utils import local_file_uri_to_path

    if urlsplit(address).netloc not in {"", "localhost"}:
        return None
    return Path(local_file_uri_to_path(address)).absolute()


def _default_root(registry: Registry) -> list[Path]:
    """Return the server's ``--default-artifact-root``, which its users cannot change.

    Experiment 0 is created with the server's database, and its artifacts are in a folder of that
    name below the root.
    """
    try:
        location = str(registry.client.get_experiment("0").artifact_location)
    except Exception as error:
        if getattr(error, "error_code", "") not in NOT_FOUND:
            raise
        return []  # `mlflow gc` removed it
    path = _path(location) if _scheme(location) in {"", "file"} else None
    return [path.parent] if path is not None and len(path.parts) > 2 else []


def _proxied(uri: str, address: str) -> str | None:
    """Return the address of artifacts that the registry, or an allowed server, proxies."""
    if not uri.lower().startswith(("http://", "https://")):
        return None
    parts = urlsplit(address)
    path = parts.path
    if parts.scheme == "mlflow-artifacts":
        if not parts.netloc:
            return _own(path)
        scheme = urlsplit(uri).scheme
    else:
        scheme, path = parts.scheme, path.partition(f"{_ARTIFACTS}/")[2]
    if "@" in parts.netloc or not path:
        return None
    address = f"{scheme}://{parts.netloc}{_ARTIFACTS}/{path.lstrip('/')}"
    try:
        if origin(address) == origin(uri):
            return _own(path)
        allowed = {origin(store) for store in allowed_stores() if store.startswith("http")}
        return address if origin(address) in allowed else None
    except ValueError:
        return None


def _own(path: str) -> str | None:
    if ".." in unquote(path).split("/"):
        return None
    return f"mlflow-artifacts:/{path.lstrip('/')}"


def _bucket(registry: Registry, address: str) -> str | None:
    """Return the address if its bucket holds artifacts of one of the registry's experiments."""
    parts = urlsplit(address)
    if not _BUCKETS[parts.scheme].fullmatch(parts.netloc) or parts.query or parts.fragment:
        return None
    known = {urlsplit(_lower(root))[:2] for root in registry.artifact_roots()}
    return address if (parts.scheme, parts.netloc) in known else None


def _within(address: str, store: str) -> bool:
    """Whether an address is below a store that the operator allows."""
    parts, allowed = urlsplit(address), urlsplit(store)
    if not allowed.scheme or (parts.scheme, parts.netloc) != (allowed.scheme, allowed.netloc):
        return False
    root, path = allowed.path.rstrip("/"), unquote(parts.path)
    return f"{path}/".startswith(f"{root}/") and ".." not in path.split("/")


def _scheme(address: str) -> str:
    found = _SCHEME.match(address)
    return found[1].lower() if found else ""


def _lower(address: str) -> str:
    """Return an address with its scheme in lower case."""
    scheme = _scheme(address)
    return f"{scheme}{address[len(scheme) :]}"


def _not_followed(uri: str, address: str, what: str) -> ConflictError:
    return ConflictError(
        f"the address of {what}, {redact(address)}, belongs neither to the registry at "
        f"{redact(uri)} nor to a store of its experiments, and is not followed",
        hint="Check who wrote that address. If you trust it, add it to STLAB_ARTIFACT_STORES.",
        kind="address",
    )
