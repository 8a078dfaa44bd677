"""The demo on real data: train, register, export, serve, forecast.

    python -m examples.us_income.demo

Run again, every step is up to date, and only the forecast is computed.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dotenv import load_dotenv
from rich.console import Console
from rich.markup import escape

from examples.us_income.accuracy import measure, naive_forecast
from examples.us_income.data import HORIZON_YEARS, load_panel
from examples.us_income.stlab_commands import DemoError, Server, export, start_server
from examples.us_income.summary import SHOWN_STATES, Step, show
from examples.us_income.train import MODEL_NAME, find_version, train_and_register
from triton_client import TritonClient

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    import numpy as np
    from numpy.typing import NDArray

    from examples.us_income.data import IncomePanel

__all__ = ["main", "run"]

_ALIAS = "staging"
_FOLDER = Path(".demo")
_READY_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Settings:
    """The registry and the repository.

    Attributes:
        tracking_uri: MLflow's runs and registry.
        repository: The model repository, a folder or a URL.
    """

    tracking_uri: str
    repository: str

    @classmethod
    def from_environment(cls) -> Settings:
        """Read the environment, then ``.env``, then take the defaults of ``stlab``."""
        load_dotenv(Path(".env"))
        return cls(
            tracking_uri=os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db",
            repository=os.environ.get("STLAB_MODEL_REPOSITORY") or "model_repository",
        )

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the ``stlab`` commands, so that they see the same registry."""
        return {**os.environ, "MLFLOW_TRACKING_URI": self.tracking_uri}


def run(settings: Settings, console: Console) -> None:
    """Do every step that is not done yet, forecast with the served model, and print the summary.

    Raises:
        DemoError: A step failed.
    """
    steps: list[Step] = []
    panel = load_panel()
    with ExitStack() as stack:
        # A published version is served at once, while the export checks that it is current.
        early = _server(settings) if _is_served(settings) else None
        server = stack.enter_context(early) if early else None

        console.print("[bold]train and register[/bold]")
        trained = _register(settings, steps)

        console.print(f"[bold]export to {_ALIAS}[/bold]")
        report = _export(settings, steps)

        if server is None or report["status"] != "unchanged":
            stack.close()
            server = stack.enter_context(_server(settings))
        console.print("[bold]serve and forecast[/bold]")
        forecast = _forecast(server, panel, steps)
    picture = _draw(panel, forecast, steps)

    show(console, steps, panel, forecast)
    if not trained and report["status"] == "unchanged":
        console.print("Everything is up to date: the model is registered, proven and published.")
    console.print(f"Picture: {picture}")
    console.print(f"Serve it: stlab serve --repository {settings.repository}")
    console.print("By HTTP:  make api        Look at it: make dashboard")


def _is_served(settings: Settings) -> bool:
    return Path(settings.repository, MODEL_NAME, "config.pbtxt").is_file()


def _server(settings: Settings) -> AbstractContextManager[Server]:
    return start_server(
        settings.repository, log=_FOLDER / "server.log", environment=settings.environment
    )


def _register(settings: Settings, steps: list[Step]) -> bool:
    """Train and register the model; return whether that was needed."""
    with _timed(steps, "train and register") as result:
        trained = find_version(settings.tracking_uri) is None
        version = train_and_register(settings.tracking_uri)
        result.append(f"{MODEL_NAME} version {version} ({_was(trained)})")
    return trained


def _export(settings: Settings, steps: list[Step]) -> dict[str, Any]:
    with _timed(steps, f"export to {_ALIAS}") as result:
        report = export(
            MODEL_NAME, _ALIAS, repository=settings.repository, environment=settings.environment
        )
        result.append(_describe(report))
    return report


def _describe(report: dict[str, Any]) -> str:
    """Say in one line what an export did and how well the served model matched."""
    margin = (report.get("parity") or {}).get("margin")
    if margin is None:
        return str(report["status"])
    return f"{report['status']}, parity margin {margin:.2g} (1 allowed)"


def _forecast(server: Server, panel: IncomePanel, steps: list[Step]) -> NDArray[np.float32]:
    """Forecast every held-out window in one request: float32 [windows, 48, 3], US dollars."""
    with _timed(steps, "start Triton") as result:
        server.wait_until_ready(_READY_SECONDS)
        result.append(f"ready at {server.url}")
    with _timed(steps, "forecast") as result, TritonClient(server.url) as client:
        history = panel.held_out.history
        forecast: NDArray[np.float32] = client.model(MODEL_NAME).infer({"history": history})[
            "forecast"
        ]
        result.append(f"{history.shape[0]} windows of {history.shape[1]} states in one request")
    return forecast


def _draw(panel: IncomePanel, forecast: NDArray[np.float32], steps: list[Step]) -> Path:
    from examples.us_income.plot import ForecastPicture, draw

    path = _FOLDER / "forecast.png"
    windows = panel.held_out
    with _timed(steps, "draw") as result:
        naive = naive_forecast(windows.history, HORIZON_YEARS)
        served, last = measure(forecast, windows.future), measure(naive, windows.future)
        draw(
            ForecastPicture(
                panel=panel,
                forecast=forecast,
                shown=SHOWN_STATES,
                caption=f"Served by Triton. Mean error ${served.mae:,.0f} ({served.mape:.1f} %); "
                f"carrying the last value forward: ${last.mae:,.0f} ({last.mape:.1f} %).",
            ),
            path,
        )
        result.append(str(path))
    return path


@contextmanager
def _timed(steps: list[Step], name: str) -> Iterator[list[str]]:
    """Time a step; what is put into the yielded list becomes its result."""
    result: list[str] = []
    start = time.perf_counter()
    yield result
    steps.append(Step(name, ", ".join(result), time.perf_counter() - start))


def _was(new: bool) -> str:
    return "new" if new else "was there"


def main() -> int:
    """Run the demo and return its exit code."""
    console = Console(highlight=False)
    try:
        run(Settings.from_environment(), console)
    except DemoError as error:
        Console(stderr=True, highlight=False).print(
            "[red]error[/red]", escape(str(error)), soft_wrap=True
        )
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
