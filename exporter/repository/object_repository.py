"""A Triton model repository on an object store.

The layout is that of a local folder. Object stores cannot rename, so the order of writes takes its
place: within a version the manifest is written last and deleted first, so a version with a manifest
is complete; warm-up data are written before the config that refers to them, and the config last. An
unfinished version is marked next to the repository, and the next run deletes what is left of it.
The model's config.pbtxt alone, which is one object, decides which versions are served.
"""

from __future__ import annotations

import shutil
import tempfile
import uuid
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path

from exporter.bundle import CONFIG, MANIFEST, REPORT, SAMPLES, WARMUP, Bundle, file_digest
from exporter.errors import ConflictError, StlabError, ValidationFailedError
from exporter.names import artifact_path
from exporter.repository.base import Publication, Repository
from exporter.repository.lease import LEASE_SECONDS, Lease
from exporter.repository.model_dir import version_files, warmup_files
from exporter.repository.object_model_dir import ObjectModelDir
from exporter.repository.object_state import ObjectState
from exporter.repository.object_store import ObjectStore
from exporter.repository.url import StoreUrl
from exporter.repository.workspace import explain_full_disk
from exporter.system.environment import temporary_folder
from exporter.triton.model_config import render

__all__ = ["ObjectRepository"]

_DOWNLOADED_WITH_MANIFEST = (CONFIG, SAMPLES, REPORT)


class ObjectRepository(Repository):
    """The repository below a prefix of a bucket.

    Args:
        address: The URL.
        lease_seconds: How long a lock outlives a holder that died on another machine.

    Methods raise the errors of `exporter.repository.fsspec_drivers.translate_errors`.
    """

    def __init__(self, address: StoreUrl, lease_seconds: float = LEASE_SECONDS) -> None:
        self.store = ObjectStore(address)
        self._root = address.name
        self._state = ObjectState(self.store, address.name)
        self._lease_seconds = lease_seconds
        self._leases: dict[str, Lease] = {}

    @contextmanager
    def workspace(self, model: str) -> Iterator[Path]:
        """See `Repository.workspace`; the folder is a temporary one on this machine."""
        locks = self._state.folder(model)
        with Lease.open(self.store, locks, model, self._lease_seconds) as lease:
            self._leases[model] = lease
            try:
                self._state.create_identity()
                with (
                    tempfile.TemporaryDirectory(prefix="stlab-work-") as work,
                    explain_full_disk(Path(work)),
                ):
                    self._delete_leftovers(model, Path(work))
                    yield Path(work)
            finally:
                del self._leases[model]

    def has_leftovers(self, model: str) -> bool:
        """See `Repository.has_leftovers`."""
        return bool(self.unfinished(model))

    def unfinished(self, model: str) -> list[int]:
        """See `Repository.unfinished`."""
        return self._state.unfinished(model)

    def ensure_locked(self, model: str) -> None:
        """See `Repository.ensure_locked`."""
        if model not in self._leases:
            raise ConflictError(
                f"the lock of '{model}' is not held",
                hint="This is a bug in stlab; please report it.",
            )
        self._leases[model].check()

    def identity(self) -> str:
        """See `Repository.identity`."""
        return self._state.identity()

    def model_dir(self, model: str) -> ObjectModelDir:
        """See `Repository.model_dir`."""
        return ObjectModelDir.list(self.store, self._folder(model))

    def bundle(self, model: str, version: int) -> Bundle | None:
        """See `Repository.bundle`; the model's own files are not downloaded."""
        folder = self._scratch / uuid.uuid4().hex / str(version)
        if not self._read_into(folder, model, MANIFEST):
            return None
        for name in _DOWNLOADED_WITH_MANIFEST:
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
        model_dir, version = self.model_dir(bundle.model), bundle.version
        bundle.verify_at(
            model_dir.version(version),
            lambda name: model_dir.holds(bundle, name, f"{version}/{name}"),
        )

    def publish(
        self,
        bundle: Bundle,
        work: Path,
    ) -> Publication | None:
        """See `Repository.publish`.

        Another bundle under the same version that is not served is deleted, and `unpublish` does
        not restore it.
        """
        model, version = bundle.model, bundle.version
        model_dir = self.model_dir(model)
        same, intact = self._check_publishable(bundle, model_dir)
        if intact:
            self._add_warmup(bundle)
            return None
        if model_dir.version(version) and not same:
            self.delete(model, version, work)
            model_dir = self.model_dir(model)
        try:
            self._upload_version(bundle, model_dir)
            self._add_warmup(bundle)
        except BaseException:
            if not same:
                with suppress(StlabError):
                    self.delete(model, version, work)
            raise
        return None if same else Publication(is_new_model=not model_dir.sizes)

    def unpublish(
        self,
        bundle: Bundle,
        publication: Publication,  # noqa: ARG002 - nothing was displaced
        work: Path,
    ) -> None:
        """See `Repository.unpublish`."""
        if bundle.version not in self.possibly_served(bundle.model):
            self.delete(bundle.model, bundle.version, work)

    def activate(self, bundle: Bundle, other_versions: Iterable[int], work: Path) -> Path | None:
        """See `Repository.activate`."""
        content = render(self.merged_config(bundle, other_versions)).encode()
        before = self.model_dir(bundle.model).read(CONFIG)
        previous = None
        if before is not None:
            previous = work / f"config-{uuid.uuid4().hex}"
            previous.write_bytes(before)
        if content != before:
            self.ensure_locked(bundle.model)
            self.store.replace(self._config(bundle.model), content)
        return previous

    def restore_config(self, model: str, previous: Path | None) -> None:
        """See `Repository.restore_config`."""
        self.ensure_locked(model)
        if previous is None:
            self.store.delete(self._config(model))
        else:
            self.store.replace(self._config(model), previous.read_bytes())

    def delete(
        self,
        model: str,
        version: int,
        work: Path,  # noqa: ARG002 - nothing is moved out
    ) -> None:
        """See `Repository.delete`; the manifest goes first."""
        self.ensure_locked(model)
        model_dir = self.model_dir(model)
        self._state.mark(model, version)
        for name in sorted(model_dir.version(version), key=lambda name: name != MANIFEST):
            self.store.delete(f"{model_dir.folder}/{version}/{name}")
        warmup = [f"{WARMUP}/{name}" for name in model_dir.entries(WARMUP)]
        for name in self._unused_warmup(model, warmup):
            self.store.delete(f"{model_dir.folder}/{name}")
        self._state.clear(model, version)

    @cached_property
    def _scratch(self) -> Path:
        path = temporary_folder("stlab-store-")
        weakref.finalize(self, shutil.rmtree, path, ignore_errors=True)
        return path

    def _folder(self, model: str) -> str:
        return f"{self._root}/{model}"

    def _config(self, model: str) -> str:
        return f"{self._folder(model)}/{CONFIG}"

    def _delete_leftovers(self, model: str, work: Path) -> None:
        """Delete the unfinished versions of killed exports, unless the live config serves them."""
        for version in self._state.unfinished(model):
            if self.model_dir(model).has(f"{version}/{MANIFEST}"):
                self._state.clear(model, version)
                continue
            with suppress(ValidationFailedError):  # it may be served: it stays
                if version not in self.served_versions(model):
                    self.delete(model, version, work)

    def _read_into(self, folder: Path, model: str, name: str) -> bool:
        content = self.store.read(f"{self._folder(model)}/{folder.name}/{name}")
        if content is not None:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return content is not None

    def _upload_version(self, bundle: Bundle, model_dir: ObjectModelDir) -> None:
        """Upload the missing or damaged files of a version, its manifest last."""
        model, version = bundle.model, bundle.version
        self.ensure_locked(model)
        self._state.mark(model, version)
        wanted = version_files(bundle)
        for name in wanted:
            at = f"{version}/{name}"
            if name != REPORT and model_dir.holds(bundle, name, at):
                continue
            if not (bundle.path / name).is_file():
                bundle.verify()
            if name == MANIFEST:
                self.ensure_locked(model)
            digest = file_digest(bundle.path / name) if name == REPORT else bundle.digest(name)
            self.store.upload(f"{model_dir.folder}/{at}", bundle.path / name, digest)
        for name in {*model_dir.version(version)} - {*wanted, REPORT}:
            self.store.delete(f"{model_dir.folder}/{version}/{name}")
        self._state.clear(model, version)

    def _add_warmup(self, bundle: Bundle) -> None:
        model_dir = self.model_dir(bundle.model)
        for name in warmup_files(bundle):
            if not model_dir.holds(bundle, name, name):
                path, digest = bundle.path / name, bundle.digest(name)
                self.store.upload(f"{model_dir.folder}/{name}", path, digest)
