"""Asks a model with its own samples, a file or the demo's years, and shows the answer."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nicegui import ui

from exporter.errors import NotFoundError, StlabError, error_of
from stlab_dashboard import income
from stlab_dashboard.answer_view import draw_answer
from stlab_dashboard.asking import Service, Triton, judge, written
from stlab_dashboard.elements import button, choice, element, radios, text
from stlab_dashboard.layout import frame, notice

if TYPE_CHECKING:
    from collections.abc import Callable

    from nicegui.events import UploadEventArguments

    from exporter.commands.status.result import AliasState
    from stlab_dashboard.settings import Settings
    from stlab_dashboard.sources import Samples, Sources

__all__ = ["try_page"]

_SAMPLE, _FILE, _YEARS = "sample", "file", "years"
_PICK = "() => getElement({id}).$refs.qRef.pickFiles()"


async def try_page(settings: Settings, sources: Sources, model: str, alias: str) -> None:
    """Show the page.

    Args:
        settings: Where the service and Triton are.
        sources: What knows of models and samples.
        model: The model chosen at first; empty for any.
        alias: The alias chosen at first; empty for any.
    """
    with frame(settings, "Try it", "/try"):
        found = await sources.status()
        known = {
            f"{entry.model}:{named.alias}": (entry.model, named)
            for entry in found.models
            for named in entry.aliases
            if named.record is not None
        }
        if not known:
            error = NotFoundError(
                "no alias names a proven version", hint="Export one: stlab-export MODEL --alias dev"
            )
            notice(found.error or error.as_dict(), "There is nothing to try")
            return
        chosen = f"{model}:{alias}"
        trial = _Trial(settings, sources, known)
        await trial.draw(chosen if chosen in known else next(iter(known)))


@dataclass
class _Trial:
    """One visitor's page."""

    settings: Settings
    sources: Sources
    known: dict[str, tuple[str, AliasState]]
    chosen: str = ""
    way: str = "service"
    kind: str = _SAMPLE
    case: str = ""
    samples: Samples | None = None
    uploaded: tuple[str, bytes] | None = None
    asking: bool = False
    parts: dict[str, Any] = field(default_factory=dict)

    async def draw(self, chosen: str) -> None:
        names = {
            key: f"{model}, {named.alias} (version {named.version})"
            for key, (model, named) in self.known.items()
        }
        ways = {
            "service": "the service (HTTP)",
            "triton": "Triton (gRPC)",
        }
        with element("section", "form", aria_label="What to ask"):
            with element("div", "fields"):
                choice("Model", names, chosen, self.choose, name="model")
                radios("Ask", ways, self.way, self.set_way, name="way")
            self.parts["inputs"] = element("div", "fields")
            with element("div", "bar"):
                self.parts["ask"] = button("Ask", self.ask, "primary")
                self.parts["said"] = text("p", "", "quiet", role="status")
        self.parts["answer"] = element("section", aria_label="The answer")
        await self.choose(chosen)

    async def choose(self, chosen: str) -> None:
        """Take another model: its samples, and no answer yet."""
        if chosen not in self.known:
            return
        self.chosen, self.samples, self.uploaded = chosen, None, None
        self.parts["answer"].clear()
        self.parts["inputs"].clear()
        try:
            samples = await self.sources.samples(*self.known[chosen])
        except StlabError as error:
            self.kind = _FILE
            with self.parts["inputs"]:
                notice(error.as_dict(), "The samples of this version cannot be read")
                self._draw_file()
            return
        self.samples, self.case, self.kind = samples, samples.cases[0], _SAMPLE
        with self.parts["inputs"]:
            self._draw_inputs(samples)

    def set_way(self, way: str) -> None:
        """Ask through the service, or Triton."""
        self.way = way

    def set_case(self, case: str) -> None:
        """Take another sample."""
        self.case = case

    def set_kind(self, kind: str) -> None:
        """Take other inputs: a sample, a file, or the demo's years; the style sheet shows which."""
        self.kind = kind

    def _draw_inputs(self, samples: Samples) -> None:
        kinds = {_SAMPLE: "a sample of the bundle", _FILE: "a file of yours"}
        if self._years() is not None:
            kinds[_YEARS] = "the years that the demo's model was not fitted on, all 48 states"
        radios("Inputs", kinds, self.kind, self.set_kind, name="inputs")
        cases = {case: f"{case}: {_shapes(samples.inputs(case))}" for case in samples.cases}
        with element("div", "of-sample"):
            choice("Sample", cases, self.case, self.set_case, name="sample")
        with element("div", "of-file"):
            self._draw_file()

    def _draw_file(self) -> None:
        upload = (
            ui.upload(
                on_upload=self.take,
                on_rejected=self.refuse,
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
            self.parts["picked"] = text("p", "No file yet.", role="status")
        text(
            "p",
            'A .npz with an array for each input, or a .json: {"x": [[1, 2], [3, 4]]}.',
            "quiet",
            id="form",
        )

    async def take(self, event: UploadEventArguments) -> None:
        """Keep a file that was uploaded."""
        self.uploaded = event.file.name, await event.file.read()
        self.parts["picked"].text = f"{event.file.name}, {len(self.uploaded[1]):,} bytes"

    def refuse(self) -> None:
        """Say that a file is not taken."""
        most = self.settings.max_file_bytes // 2**20
        self.parts["picked"].text = f"Only a .npz or a .json of at most {most} MiB is taken."

    async def ask(self) -> None:
        """Ask, and show the answer; once at a time."""
        if self.asking:
            return
        self.asking, begun = True, self.chosen
        self.parts["said"].text = "Asking …"
        try:
            show = await self._asked()
            said = "The answer is below."
        except StlabError as error:
            show, said = partial(notice, error.as_dict(), "There is no answer"), "No answer."
        finally:
            self.asking = False
        if begun != self.chosen:
            self.parts["said"].text = ""
            return
        self.parts["said"].text = said
        self.parts["answer"].clear()
        with self.parts["answer"]:
            show()

    async def _asked(self) -> Callable[[], None]:
        """Return what shows the answer to what is chosen now."""
        model, named = self.known[self.chosen]
        way, kind, case, samples = self.way, self.kind, self.case, self.samples
        asker = Triton(self.settings) if way == "triton" else Service(self.settings)
        with tempfile.TemporaryDirectory(prefix="stlab-dashboard-") as folder:
            inputs = await asyncio.to_thread(self._inputs, Path(folder))
            answer = await asyncio.to_thread(asker, model, inputs, named.version)
        if answer.error is not None:
            raise error_of(answer.exit_code, **answer.error)
        verdict = forecasts = None
        if kind == _SAMPLE and samples is not None and answer.version == named.version:
            verdict = judge(samples, case, answer.outputs)
        if kind == _YEARS:
            forecasts = income.forecasts_of(answer.outputs)
        return partial(draw_answer, answer, way, named, verdict, forecasts)

    def _inputs(self, folder: Path) -> Path:
        if self.kind == _FILE:
            if self.uploaded is None:
                raise NotFoundError("there is no file yet", hint="Choose one first.")
            name, content = self.uploaded
            path = folder / f"inputs{Path(name).suffix}"
            path.write_bytes(content)
            return path
        years = self._years() if self.kind == _YEARS else None
        if years is not None:
            return written(years, folder)
        if self.samples is None:
            raise NotFoundError("there are no samples", hint="Choose a file.")
        return written(self.samples.inputs(self.case), folder)

    def _years(self) -> dict[str, Any] | None:
        model, _ = self.known[self.chosen]
        if model != income.MODEL or self.samples is None:
            return None
        return income.history(tuple(self.samples.inputs(self.samples.cases[0])))


def _shapes(inputs: dict[str, Any]) -> str:
    return ", ".join(f"{name} {list(array.shape)}" for name, array in inputs.items())
