"""The page *Try it*: runs a model on its own samples or on a file, and shows the response."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from nicegui import ui
from nicegui.events import UploadEventArguments

from exporter.arrays import Arrays
from exporter.commands.infer.result import InferResult, described, plain
from exporter.commands.status.result import AliasState
from exporter.errors import NotFoundError, StlabError
from stlab_dashboard.elements import (
    button,
    cell,
    choice,
    element,
    radios,
    row,
    state,
    table,
    text,
)
from stlab_dashboard.inference import SERVERS, Comparison, Inputs, compare_with_sample, infer
from stlab_dashboard.layout import notice
from stlab_dashboard.registry_reader import RegistryReader, Samples
from stlab_dashboard.settings import Settings

__all__ = ["try_page"]

_COLUMNS = ("Output", "Type", "Shape", "First values", "Min", "Mean", "Max")
_NUMERIC = ("Min", "Mean", "Max")
_MAX_VALUES = 2000
_SAMPLE, _FILE = "sample", "file"
_PICK = "() => getElement({id}).$refs.qRef.pickFiles()"


async def try_page(settings: Settings, registry: RegistryReader, model: str, alias: str) -> None:
    """Draw the page; a model and an alias are chosen at first, or any."""
    status = await registry.status()
    targets = {
        f"{entry.model}:{named.alias}": (entry.model, named)
        for entry in status.models
        for named in entry.aliases
        if named.record is not None
    }
    if not targets:
        error = NotFoundError(
            "no alias points to a version with passed evidence",
            hint="Export one: stlab-export MODEL --alias dev",
        )
        notice(status.error or error.as_dict(), "There is nothing to try")
        return
    chosen = f"{model}:{alias}"
    form = _Form(settings, registry, targets)
    await form.draw(chosen if chosen in targets else next(iter(targets)))


@dataclass
class _Form:
    """One visitor's form and response."""

    settings: Settings
    registry: RegistryReader
    targets: dict[str, tuple[str, AliasState]]
    chosen: str = ""
    via: str = "service"
    kind: str = _SAMPLE
    case: str = ""
    samples: Samples | None = None
    uploaded: Inputs | None = None
    running: bool = False
    parts: dict[str, Any] = field(default_factory=dict)

    async def draw(self, chosen: str) -> None:
        names = {
            key: f"{model}, {named.alias} (version {named.version})"
            for key, (model, named) in self.targets.items()
        }
        with element("section", "form", aria_label="Request"):
            with element("div", "fields"):
                choice("Model", names, chosen, self.choose, name="model")
                radios("Send to", SERVERS, self.via, partial(setattr, self, "via"), name="via")
            self.parts["inputs"] = element("div", "fields")
            with element("div", "bar"):
                button("Send", self.send, "primary")
                self.parts["status"] = text("p", "", "quiet", role="status")
        self.parts["response"] = element("section", aria_label="Response")
        await self.choose(chosen)

    async def choose(self, chosen: str) -> None:
        """Take another model, with its samples and without a response."""
        if chosen not in self.targets:
            return
        self.chosen, self.samples, self.uploaded = chosen, None, None
        self.parts["response"].clear()
        self.parts["inputs"].clear()
        try:
            samples = await self.registry.samples(*self.targets[chosen])
        except StlabError as error:
            self.kind = _FILE
            with self.parts["inputs"]:
                notice(error.as_dict(), "The samples of this version cannot be read")
                self._draw_file()
            return
        self.samples, self.case, self.kind = samples, next(iter(samples.cases)), _SAMPLE
        with self.parts["inputs"]:
            self._draw_inputs(samples)

    def _draw_inputs(self, samples: Samples) -> None:
        # The style sheet shows the fields of one of them.
        kinds = {_SAMPLE: "a sample of the bundle", _FILE: "a file"}
        radios("Inputs", kinds, self.kind, partial(setattr, self, "kind"), name="inputs")
        cases = {name: f"{name}: {_shapes(s.case.inputs)}" for name, s in samples.cases.items()}
        with element("div", "of-sample"):
            choice("Sample", cases, self.case, partial(setattr, self, "case"), name="sample")
        with element("div", "of-file"):
            self._draw_file()

    def _draw_file(self) -> None:
        upload = (
            ui.upload(
                on_upload=self.take,
                on_rejected=self.reject,
                auto_upload=True,
                max_file_size=self.settings.max_file_bytes,
            )
            .props("accept=.npz,.json aria-hidden=true")
            .classes("offstage")
        )
        with element("div", "bar"):
            text("button", "Choose a file", "button", type="button", aria_describedby="form").on(
                "click", js_handler=_PICK.format(id=upload.id)
            )
            self.parts["picked"] = text("p", "No file is chosen.", role="status")
        text(
            "p",
            'A .npz with an array for each input, or a .json: {"x": [[1, 2], [3, 4]]}.',
            "quiet",
            id="form",
        )

    async def take(self, event: UploadEventArguments) -> None:
        """Keep a file that was uploaded."""
        self.uploaded = Inputs(event.file.name, await event.file.read())
        size = len(self.uploaded.content)
        self.parts["picked"].text = f"{self.uploaded.name}, {size:,} bytes"

    def reject(self) -> None:
        """Say which files are accepted."""
        limit = self.settings.max_file_bytes // 2**20
        self.parts["picked"].text = f"Choose a .npz or a .json of at most {limit} MiB."

    async def send(self) -> None:
        """Send one request at a time, and show the response."""
        if self.running:
            return
        self.running, chosen = True, self.chosen
        self.parts["status"].text = "Running …"
        try:
            draw = await self._respond()
            status = "Done."
        except StlabError as error:
            draw, status = partial(notice, error.as_dict(), "The request failed"), "Failed."
        finally:
            self.running = False
        if chosen != self.chosen:
            self.parts["status"].text = ""
            return
        self.parts["status"].text = status
        self.parts["response"].clear()
        with self.parts["response"]:
            draw()

    async def _respond(self) -> Callable[[], None]:
        """Run what is chosen now, and return what draws the response."""
        model, alias = self.targets[self.chosen]
        via, kind, case, samples = self.via, self.kind, self.case, self.samples
        result = await infer(self.settings, via, model, self._inputs(), alias.version)
        comparison = None
        if kind == _SAMPLE and samples is not None and result.version == alias.version:
            comparison = compare_with_sample(samples, case, result.outputs)
        return partial(_draw_response, result, SERVERS[via], alias, comparison)

    def _inputs(self) -> Inputs:
        if self.kind == _SAMPLE and self.samples is not None:
            return Inputs.of(self.samples.cases[self.case].case.inputs)
        if self.uploaded is None:
            raise NotFoundError("no file is chosen", hint="Choose one first.")
        return self.uploaded


def _shapes(inputs: Arrays) -> str:
    return ", ".join(f"{name} {list(array.shape)}" for name, array in inputs.items())


def _draw_response(
    result: InferResult, server: str, alias: AliasState, comparison: Comparison | None
) -> None:
    """Draw the response of a server such as ``Triton (gRPC)`` to a request for an alias."""
    text("h2", "Response")
    version = "" if result.version is None else f", version {result.version}"
    with element("p"):
        text("strong", f"{1000 * (result.seconds or 0.0):.1f} ms")
        text("span", f" round trip, {server}{version}.")
    if comparison is not None:
        _draw_comparison(comparison)
    elif result.version not in {None, alias.version}:
        state(
            "warn",
            f"Not compared: {server} serves version {result.version}, and '{alias.alias}' points "
            f"to version {alias.version}",
        )
    with table("Outputs", _COLUMNS):
        for name, array in result.outputs.items():
            with row():
                for header, content in zip(_COLUMNS, described(name, array), strict=True):
                    number = "number" if header in _NUMERIC else ""
                    cell(header, content, number, first=header == _COLUMNS[0])
    with element("details"):
        text("summary", "All values")
        for name, array in result.outputs.items():
            text("h3", name)
            cut = array.size > _MAX_VALUES
            values = json.dumps(plain(array.reshape(-1)[:_MAX_VALUES] if cut else array))
            note = f" (the first {_MAX_VALUES} of {array.size})" if cut else ""
            text("pre", values + note, tabindex="0")


def _draw_comparison(comparison: Comparison) -> None:
    with element("p", "comparison"):
        if comparison.mismatch:
            state("bad", f"differs from the registered model: {comparison.mismatch}")
            return
        state("good", "equals the registered model's outputs")
        text(
            "span",
            f" Largest difference {comparison.max_abs_error:.3g}, which is "
            f"{comparison.margin:.3g} of the tolerance.",
        )
