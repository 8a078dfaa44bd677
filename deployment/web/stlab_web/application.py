"""What both web applications share: settings, the layers in front, and how they start."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import FastAPI
from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from exporter.errors import UsageError
from exporter.system.environment import load_dotenv
from exporter.system.standard_streams import secure_standard_streams
from exporter.text.redaction import redact
from exporter.text.terminal import block
from stlab_web.asgi import (
    LOOPBACK_HOSTS,
    AllowedHosts,
    PathPrefix,
    Refuse,
    host_names,
    path_prefix,
    trusted_networks,
)

__all__ = ["WebSettings", "add_front", "shared", "starting"]


def shared(prefix: str, name: str, default: str) -> Any:
    """Return a field whose variable has no prefix, since all of stlab uses it, or this one."""
    return Field(default, validation_alias=AliasChoices(name, f"{prefix}{name}"))


class WebSettings(BaseSettings):
    """Environment over ``.env`` over default."""

    model_config = SettingsConfigDict(
        env_file=".env", extra="ignore", frozen=True, hide_input_in_errors=True
    )

    host: str = "127.0.0.1"
    root_path: str = ""
    allowed_hosts: str = ""
    forwarded_allow_ips: str = "127.0.0.1,::1"

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts to answer for: those in the setting, localhost and the own address."""
        every = ("0.0.0.0", "::")  # noqa: S104 - not names that a browser should use
        own = () if self.host in every else host_names(self.host)
        return (*host_names(self.allowed_hosts), *LOOPBACK_HOSTS, *own)


def add_front(
    app: FastAPI, settings: WebSettings, refuse: Refuse, always: Iterable[str] = ()
) -> None:
    """Add the layers for hosts and proxies, in front of those that the application has.

    Raises:
        UsageError: A setting is not valid.
    """
    proxies = settings.forwarded_allow_ips
    app.add_middleware(AllowedHosts, hosts=settings.hosts, refuse=refuse, always=always)
    app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=proxies)
    app.add_middleware(
        PathPrefix, prefix=path_prefix(settings.root_path), trusted=trusted_networks(proxies)
    )


@contextmanager
def starting(program: str) -> Iterator[None]:
    """Prepare a process; it ends with 2, the error and its hint if a setting is not valid."""
    secure_standard_streams()
    load_dotenv()
    try:
        yield
    except (UsageError, ValueError) as error:
        text = "\n".join(filter(None, (f"{program}: {error}", getattr(error, "hint", ""))))
        print(block(redact(text)), file=sys.stderr)  # noqa: T201
        sys.exit(2)
