"""A Triton model repository on an object store.

The layout is that of a local folder. Nothing can be renamed here, so order takes its place: within
a version the manifest is written last and deleted first, so that its presence means that the
version is whole; warm-up data come before the config that names them, and the config comes last. A
version that is under way is noted beside the repository, and the next run removes what is left of
it. Which versions are served is said by the model's config.pbtxt alone, which is one object.
"""

from __future__ import annotations

import shutil
import tempfile
import uuid
import weakref
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.bundle import CONFIG, MANIFEST, REPORT, SAMPLES, WARMUP, Bundle, file_digest
from exporter.errors import ConflictError, StlabError, ValidationFailedError
from exporter.names import artifact_path, served_version
from exporter.repository.base import Publication, merged_config
from exporter.repository.lease import LEASE_SECONDS, Lease
from exporter.repository.model_dir import (
    reject_foreign_files,
    served_versions,
    version_files,
    versions_at,
    warmup_files,
)
from exporter.repository.object_model_dir import ObjectModelDir
from exporter.repository.object_store import ObjectStore
from exporter.repository.published import (
    check_not_served,
    check_replaceable,
    is_remnant,
    is_served,
    possibly_served,
    published_state,
    unused_warmup_files,
)
from exporter.repository.workspace import FORMER_IDENTITY, IDENTITY, explain_full_disk
from exporter.system.environment import temporary_folder
from exporter.triton.model_config import render

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from exporter.repository.url import StoreUrl

__all__ = ["ObjectRepository"]

_UNFINISHED = "unfinished-"
_READ_AT_ONCE = (CONFIG, SAMPLES, REPORT)


class ObjectRepository:
    """The repository below a prefix of a bucket.

    Args:
        address: Where it lies.
        lease_seconds: How long a lock outlives a holder that died on another machine.

    Whatever reads or writes raises what `exporter.repository.fsspec_drivers.translate_errors` does.
    """

    def __init__(self, address: StoreUrl, lease_seconds: float = LEASE_SECONDS) -> None:
        self.store = ObjectStore(address)
        self._root = address.name
        self._beside = f".{address.name}.stlab"
        self._lease_seconds = lease_seconds
        self._leases: dict[str, Lease] = {}

    @contextmanager
    def workspace(self, model: str) -> Iterator[Path]:
        """See `Repository.workspace`; the folder is a temporary one of this machine."""
        with Lease.open(self.store, self._notes(model), model, self._lease_seconds) as lease:
            self._leases[model] = lease
            try:
                self._keep_identity()
                self._clean(model)
                with (
                    tempfile.TemporaryDirectory(prefix="stlab-work-") as work,
                    explain_full_disk(Path(work)),
                ):
                    yield Path(work)
            finally:
                del self._leases[model]

    def clean_up(self, model: str) -> None:
        """See `Repository.clean_up`."""
        if self._unfinished(model):
            with suppress(StlabError), self.workspace(model):
                pass  # it begins with that

    def ensure_locked(self, model: str) -> None:
        """See `Repository.ensure_locked`."""
        if model not in self._leases:
            raise ConflictError(
                f"the lock of '{model}' is not held",
                hint="This is a fault of stlab: it changes a model only in its workspace.",
            )
        self._leases[model].check()

    def identity(self) -> str:
        """See `Repository.identity`."""
        found = self._identity_at(IDENTITY) or self._identity_at(FORMER_IDENTITY) or b""
        return found.decode(errors="replace").strip()

    def versions(self, model: str) -> tuple[int, ...]:
        """See `Repository.versions`."""
        return versions_at(self._look(model))

    def bundle(self, model: str, version: int) -> Bundle | None:
        """See `Repository.bundle`; the model's own files are not downloaded."""
        folder = self._scratch / uuid.uuid4().hex / str(version)
        if not self._read_into(folder, model, MANIFEST):
            return None
        for name in _READ_AT_ONCE:
            self._read_into(folder, model, name)
        return Bundle.open(folder, model, version)

    def fetch(self, bundle: Bundle, folder: Path) -> Bundle:
        """See `Repository.fetch`."""
        source = f"{self._folder(bundle.model)}/{bundle.version}"
        for name, entry in bundle.files.items():
            path = folder / artifact_path(name)
            self.store.download(f"{source}/{name}", path, int(entry["bytes"]))
        for name in {MANIFEST, REPORT} & {path.name for path in bundle.path.iterdir()}:
            shutil.copyfile(bundle.path / name, folder / name)
        fetched = Bundle(folder, bundle.manifest)
        fetched.verify()
        return fetched

    def verify(self, bundle: Bundle) -> None:
        """See `Repository.verify`."""
        place, version = self._look(bundle.model), bundle.version
        bundle.verify_at(
            place.version(version), lambda name: place.holds(bundle, name, f"{version}/{name}")
        )

    def served_versions(self, model: str) -> tuple[int, ...]:
        """See `Repository.served_versions`."""
        return served_versions(self._look(model))

    def is_serving(self, bundle: Bundle) -> bool:
        """See `Repository.is_serving`."""
        place = self._look(bundle.model)
        return is_served(self, bundle, place, self._unfinished(bundle.model))

    def publish(
        self,
        bundle: Bundle,
        work: Path,  # noqa: ARG002 - nothing need be laid out
    ) -> Publication | None:
        """See `Repository.publish`.

        Another bundle that lies in the version's place without being served is deleted, and does
        not come back.
        """
        model, version = bundle.model, bundle.version
        place = self._look(model)
        reject_foreign_files(place, self._unfinished(model))
        ours, whole = published_state(self, bundle)
        ours = ours or is_remnant(bundle, place)
        if whole:
            self._add_warmup(bundle)
            return None
        if place.version(version) and not ours:
            check_replaceable(self, bundle, place)
            self._take_away(model, version)
            place = self._look(model)
        try:
            self._put_version(bundle, place)
            self._add_warmup(bundle)
        except BaseException:
            if not ours:
                with suppress(StlabError):
                    self._take_away(model, version)
            raise
        return None if ours else Publication(is_new_model=not place.sizes)

    def unpublish(
        self,
        bundle: Bundle,
        publication: Publication,  # noqa: ARG002 - nothing was set aside
        work: Path,  # noqa: ARG002
    ) -> None:
        """See `Repository.unpublish`."""
        if bundle.version not in possibly_served(self, bundle.model):
            self._take_away(bundle.model, bundle.version)

    def check_compatible(self, bundle: Bundle, beside: Iterable[int]) -> None:
        """See `Repository.check_compatible`."""
        merged_config(self, bundle, beside)

    def activate(self, bundle: Bundle, beside: Iterable[int], work: Path) -> Path | None:
        """See `Repository.activate`."""
        content = render(merged_config(self, bundle, beside)).encode()
        before = self._look(bundle.model).read(CONFIG)
        kept = None
        if before is not None:
            kept = work / f"config-{uuid.uuid4().hex}"
            kept.write_bytes(before)
        if content != before:
            self.ensure_locked(bundle.model)
            self.store.replace(self._config(bundle.model), content)
        return kept

    def restore_config(self, model: str, kept: Path | None) -> None:
        """See `Repository.restore_config`."""
        self.ensure_locked(model)
        if kept is None:
            self.store.delete(self._config(model))
        else:
            self.store.replace(self._config(model), kept.read_bytes())

    def remove(
        self,
        model: str,
        version: int,
        work: Path,  # noqa: ARG002 - the store forgets at once
    ) -> None:
        """See `Repository.remove`."""
        check_not_served(self, model, version)
        self._take_away(model, version)

    @cached_property
    def _scratch(self) -> Path:
        path = temporary_folder("stlab-store-")
        weakref.finalize(self, shutil.rmtree, path, ignore_errors=True)
        return path

    def _keep_identity(self) -> None:
        """Give the repository its name, unless it has one, where no model's folder can be."""
        if not self._identity_at(IDENTITY):
            name = self._identity_at(FORMER_IDENTITY) or uuid.uuid4().hex.encode()
            self.store.create(f"{self._beside}/{IDENTITY}", name)

    def _identity_at(self, name: str) -> bytes | None:
        return self.store.read(f"{self._beside}/{name}")

    def _folder(self, model: str) -> str:
        return f"{self._root}/{model}"

    def _config(self, model: str) -> str:
        return f"{self._folder(model)}/{CONFIG}"

    def _notes(self, model: str) -> str:
        return f"{self._beside}/{model}"

    def _note(self, model: str, version: int) -> str:
        return f"{self._notes(model)}/{_UNFINISHED}{version}"

    def _look(self, model: str) -> ObjectModelDir:
        return ObjectModelDir.list(self.store, self._folder(model))

    def _unfinished(self, model: str) -> Collection[int]:
        """Return the versions that were under way when an export ended."""
        names = self.store.list(self._notes(model))
        noted = (served_version(n.removeprefix(_UNFINISHED)) for n in names if _UNFINISHED in n)
        return [version for version in noted if version is not None]

    def _clean(self, model: str) -> None:
        """Remove what a killed export left; what the live config names stays."""
        for version in self._unfinished(model):
            place = self._look(model)
            if place.has(f"{version}/{MANIFEST}"):
                self.store.delete(self._note(model, version))
                continue
            with suppress(ValidationFailedError):  # whether it is served nobody can tell: it stays
                if version not in self.served_versions(model):
                    self._take_away(model, version)

    def _read_into(self, folder: Path, model: str, name: str) -> bool:
        content = self.store.read(f"{self._folder(model)}/{folder.name}/{name}")
        if content is not None:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return content is not None

    def _put_version(self, bundle: Bundle, place: ObjectModelDir) -> None:
        """Upload what is missing or damaged of a version, its manifest last."""
        model, version = bundle.model, bundle.version
        self.ensure_locked(model)
        note = self._note(model, version)
        self.store.replace(note, b"")
        wanted = version_files(bundle)
        for name in wanted:
            at = f"{version}/{name}"
            if name != REPORT and place.holds(bundle, name, at):
                continue
            if not (bundle.path / name).is_file():
                bundle.verify()
            if name == MANIFEST:
                self.ensure_locked(model)
            digest = file_digest(bundle.path / name) if name == REPORT else bundle.digest(name)
            self.store.upload(f"{place.folder}/{at}", bundle.path / name, digest)
        for name in {*place.version(version)} - {*wanted, REPORT}:
            self.store.delete(f"{place.folder}/{version}/{name}")
        self.store.delete(note)

    def _add_warmup(self, bundle: Bundle) -> None:
        place = self._look(bundle.model)
        for name in warmup_files(bundle):
            if not place.holds(bundle, name, name):
                path, digest = bundle.path / name, bundle.digest(name)
                self.store.upload(f"{place.folder}/{name}", path, digest)

    def _take_away(self, model: str, version: int) -> None:
        """Delete a version, its manifest first, and the warm-up data that nobody needs then."""
        self.ensure_locked(model)
        note, place = self._note(model, version), self._look(model)
        self.store.replace(note, b"")
        for name in sorted(place.version(version), key=lambda name: name != MANIFEST):
            self.store.delete(f"{place.folder}/{version}/{name}")
        warmup = [f"{WARMUP}/{name}" for name in place.entries(WARMUP)]
        for name in unused_warmup_files(self, model, place, warmup):
            self.store.delete(f"{place.folder}/{name}")
        self.store.delete(note)
