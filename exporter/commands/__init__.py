"""The Python API of stlab's commands: a request in, a result out, nothing printed.

    from exporter.commands import ExportRequest, export

    result = export(ExportRequest("income", "staging"))
    if result.error is not None:
        ...

Functions and types are imported on first use.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exporter.commands.doctor.command import DoctorRequest, DoctorResult, doctor
    from exporter.commands.export.pipeline import export
    from exporter.commands.export.request import ExportRequest
    from exporter.commands.export.result import ExportResult
    from exporter.commands.infer.command import InferRequest, infer
    from exporter.commands.infer.result import InferResult
    from exporter.commands.prune import PruneRequest, PruneResult, prune
    from exporter.commands.pull import PullRequest, pull
    from exporter.commands.result import CommandResult
    from exporter.commands.rollback import RollbackRequest, rollback
    from exporter.commands.serve import ServeRequest, serve
    from exporter.commands.status.command import StatusRequest, status
    from exporter.commands.status.result import StatusResult
    from exporter.commands.verify import ServerVerdict, VerifyRequest, VerifyResult, verify

__all__ = [
    "CommandResult",
    "DoctorRequest",
    "DoctorResult",
    "ExportRequest",
    "ExportResult",
    "InferRequest",
    "InferResult",
    "PruneRequest",
    "PruneResult",
    "PullRequest",
    "RollbackRequest",
    "ServeRequest",
    "ServerVerdict",
    "StatusRequest",
    "StatusResult",
    "VerifyRequest",
    "VerifyResult",
    "doctor",
    "export",
    "infer",
    "prune",
    "pull",
    "rollback",
    "serve",
    "status",
    "verify",
]

_EXPORTS = {
    "doctor.command": ("DoctorRequest", "DoctorResult", "doctor"),
    "export.pipeline": ("export",),
    "export.request": ("ExportRequest",),
    "export.result": ("ExportResult",),
    "infer.command": ("InferRequest", "infer"),
    "infer.result": ("InferResult",),
    "prune": ("PruneRequest", "PruneResult", "prune"),
    "pull": ("PullRequest", "pull"),
    "result": ("CommandResult",),
    "rollback": ("RollbackRequest", "rollback"),
    "serve": ("ServeRequest", "serve"),
    "status.command": ("StatusRequest", "status"),
    "status.result": ("StatusResult",),
    "verify": ("ServerVerdict", "VerifyRequest", "VerifyResult", "verify"),
}
_MODULES = {name: module for module, names in _EXPORTS.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


class _Commands(ModuleType):
    def __setattr__(self, name: str, value: Any) -> None:
        # Importing the submodule exporter.commands.export must not replace the function.
        if not (name in _MODULES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Commands
