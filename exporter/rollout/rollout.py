"""Publishes a proven bundle, makes it the served one, and undoes both if anything fails."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from exporter.errors import OutcomeUnknownError, StlabError
from exporter.names import ARCHIVED
from exporter.registry import is_current, repository_of
from exporter.repository import check_compatible, possibly_served
from exporter.rollout.live_servers import answers, reload, unload, verify

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from exporter.bundle import Bundle
    from exporter.progress import Steps
    from exporter.registry import Selection
    from exporter.repository import Repository

__all__ = ["Rollout", "is_rolled_out", "versions_to_keep"]


def is_rolled_out(
    repository: Repository, selection: Selection, alias: str, bundle: Bundle, urls: Sequence[str]
) -> bool:
    """Whether the alias, the repository and every server already have exactly this bundle.

    Raises:
        UnavailableError: The repository or a server does not answer.
    """
    return (
        is_current(selection, alias, bundle.sha256)
        and repository.is_serving(bundle)
        and all(answers(url, bundle) for url in urls)
    )


def versions_to_keep(
    repository: Repository,
    model: str,
    alias: str,
    aliases: Mapping[str, int],
    versions: Mapping[int, Mapping[str, str]] | None = None,
) -> set[int]:
    """Return the versions that a repository serves for other aliases, which stay served.

    Args:
        repository: The repository.
        model: The model.
        alias: The alias that is rolled out.
        aliases: The version that every alias points to now.
        versions: The tags of every version. With them, an alias that was rolled out to another
            repository keeps nothing here: a rollback must not leave served what it takes back.
    """
    here = {"", repository.identity()}
    named = {
        version
        for name, version in aliases.items()
        if name not in {alias, ARCHIVED}
        and (versions is None or repository_of(versions.get(version, {}), name) in here)
    }
    return set(possibly_served(repository, model)) & named


@dataclass(frozen=True, slots=True)
class Rollout:
    """Where bundles go.

    Attributes:
        repository: Where they are published.
        urls: gRPC addresses of the servers to activate them on.
        workdir: The folder that the repository's workspace lent.
    """

    repository: Repository
    urls: Sequence[str]
    workdir: Path

    @contextlib.contextmanager
    def apply(
        self, bundle: Bundle, other_versions: Collection[int], steps: Steps
    ) -> Iterator[None]:
        """Publish, activate and verify; undone where that fails, or the block.

        Args:
            bundle: What was proven.
            other_versions: Other versions that stay served.
            steps: Told of every step.

        Raises:
            OutcomeUnknownError: The block cannot tell whether the alias was moved; the bundle stays
                published and served, and the next run finds out.
            StlabError: A step failed; repository and servers are as before.
        """
        repository = self.repository
        is_new_model = not possibly_served(repository, bundle.model)
        with contextlib.ExitStack() as undo:
            with steps("publish"):
                check_compatible(repository, bundle, other_versions)
                publication = repository.publish(bundle, self.workdir)
                if publication is not None:
                    undo.callback(repository.unpublish, bundle, publication, self.workdir)
            with steps("activate"):
                kept = repository.activate(bundle, other_versions, self.workdir)
                undo.callback(self._go_back, bundle, kept, is_new_model=is_new_model)
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

    def _go_back(self, bundle: Bundle, kept: Path | None, *, is_new_model: bool) -> None:
        self.repository.restore_config(bundle.model, kept)
        for url in self.urls:
            with contextlib.suppress(StlabError):
                if is_new_model:
                    unload(url, bundle.model)
                else:
                    reload(url, bundle, must_serve=False)
