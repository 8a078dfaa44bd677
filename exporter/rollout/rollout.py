"""Publishes a proven bundle, makes it the served one, and undoes both if anything fails."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from exporter.errors import OutcomeUnknownError, StlabError
from exporter.names import ARCHIVED
from exporter.registry import kept_in
from exporter.repository import possibly_served
from exporter.rollout.live_servers import reload, unload, verify

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from exporter.bundle import Bundle
    from exporter.progress import Steps
    from exporter.registry import Selection
    from exporter.repository import Repository

__all__ = ["Delivery", "staying"]


def staying(
    repository: Repository, selection: Selection, alias: str, aliases: Mapping[str, int]
) -> set[int]:
    """Return the other versions that a repository serves for an alias that still names them.

    An alias that is kept in another repository keeps nothing here, or a rollback would leave
    served what it takes back.

    Args:
        repository: The repository.
        selection: The version that is to be served.
        alias: The alias that is to name it.
        aliases: What every alias names now.
    """
    here = repository.identity()
    named = {
        version
        for name, version in aliases.items()
        if name not in {alias, ARCHIVED}
        and kept_in(selection.versions.get(version, {}), name) in {"", here}
    }
    return (set(possibly_served(repository, selection.model)) & named) - {selection.version}


@dataclass(frozen=True, slots=True)
class Delivery:
    """Where bundles go.

    Attributes:
        repository: Where they are published.
        urls: gRPC addresses of the servers to activate them on.
        work: The folder that the repository's workspace lent.
    """

    repository: Repository
    urls: Sequence[str]
    work: Path

    @contextlib.contextmanager
    def deliver(self, bundle: Bundle, beside: Collection[int], steps: Steps) -> Iterator[None]:
        """Publish, activate and verify; undone where that fails, or the block.

        Args:
            bundle: What was proven.
            beside: Other versions that stay served.
            steps: Told of every step.

        Raises:
            OutcomeUnknownError: The block cannot tell whether the alias was moved; the bundle stays
                published and served, and the next run finds out.
            StlabError: A step failed; repository and servers are as before.
        """
        repository = self.repository
        fresh = not possibly_served(repository, bundle.model)
        with contextlib.ExitStack() as undo:
            with steps("publish"):
                repository.check_agreement(bundle, beside)
                publication = repository.publish(bundle, self.work)
                if publication is not None:
                    undo.callback(repository.withdraw, bundle, publication, self.work)
            with steps("activate"):
                kept = repository.activate(bundle, beside, self.work)
                undo.callback(self._go_back, bundle, kept, fresh=fresh)
                for url in self.urls:
                    reload(url, bundle)
            with steps("verify"):
                for url in self.urls:
                    verify(url, bundle)
            try:
                yield
            except OutcomeUnknownError:
                undo.pop_all()
                raise
            undo.pop_all()

    def _go_back(self, bundle: Bundle, kept: Path | None, *, fresh: bool) -> None:
        self.repository.go_back(bundle.model, kept)
        for url in self.urls:
            with contextlib.suppress(StlabError):
                if fresh:
                    unload(url, bundle.model)
                else:
                    reload(url, bundle, must_serve=False)
