"""Page plug-ins: pages that other distributions add to the dashboard.

A plug-in is a class without arguments, named by an entry point of the group
``stlab_dashboard.pages``. It draws with NiceGUI, with `stlab_dashboard.elements` and
`stlab_dashboard.charts`.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import Any, Protocol

from exporter.arrays import Arrays
from exporter.commands.infer.result import InferResult
from exporter.commands.status.result import AliasState, StatusResult
from exporter.errors import StlabError
from stlab_dashboard.inference import Inputs, infer
from stlab_dashboard.layout import PAGES, notice
from stlab_dashboard.registry_reader import RegistryReader
from stlab_dashboard.settings import Settings
from stlab_web.plugins import check_paths, check_signature, check_texts, load_plugins

__all__ = ["GROUP", "PageContext", "PagePlugin", "draw_page", "load_page_plugins"]

GROUP = "stlab_dashboard.pages"

_PATH = re.compile(r"/[a-z][a-z0-9/_-]*")
_RESERVED = {"report", "static", "health", *(path.strip("/") for path in PAGES)}
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PageContext:
    """What a page can read and run."""

    settings: Settings
    registry: RegistryReader

    async def status(self) -> StatusResult:
        """Return what ``stlab status`` reports; an error is in it."""
        return await self.registry.status()

    async def aliases(self, model: str) -> list[AliasState]:
        """Return the aliases of a model that point to a version with passed evidence."""
        return [
            alias
            for entry in (await self.status()).models
            for alias in entry.aliases
            if entry.model == model and alias.record is not None
        ]

    async def infer(
        self, model: str, inputs: Arrays, *, via: str = "service", version: int | None = None
    ) -> InferResult:
        """Run one inference via the ``service``, which chooses the version itself, or ``triton``.

        Raises:
            StlabError: There is no response, or it is an error.
        """
        return await infer(self.settings, via, model, Inputs.of(inputs), version)


class PagePlugin(Protocol):
    """One page.

    Attributes:
        path: Where it is, such as ``/loans``.
        title: Its heading, and its name in the navigation.
    """

    path: str
    title: str

    async def draw(self, context: PageContext) -> None:
        """Draw the content below the heading; called for every visitor."""


def load_page_plugins() -> list[PagePlugin]:
    """Return the installed page plug-ins, by name.

    Raises:
        UsageError: A plug-in is broken, or two have the same path; the message names it.
    """
    found: list[PagePlugin] = load_plugins(GROUP, _check)
    check_paths(found)
    return found


async def draw_page(plugin: PagePlugin, context: PageContext) -> None:
    """Draw a plug-in's page; an error becomes a notice, and one of the plug-in is logged."""
    try:
        await plugin.draw(context)
    except StlabError as error:
        notice(error.as_dict(), "There is nothing to show")
    except Exception as error:
        _logger.exception("the page plug-in '%s' failed", plugin.title)
        described = {"message": f"{type(error).__name__}: {error}", "hint": "See the log."}
        notice(described, f"The page plug-in '{plugin.title}' failed")


def _check(plugin: Any) -> None:
    check_texts(plugin, "path", "title")
    check_signature(plugin, "draw", "context")
    if not _PATH.fullmatch(plugin.path) or plugin.path.split("/")[1] in _RESERVED:
        raise ValueError(f"the path {plugin.path!r} is not free: give one such as /loans")
