"""Compile modules for confined processes, which cannot write bytecode and would compile every time.

Source: the documentation of compileall, and PEP 3147 on where bytecode is kept.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from exporter.system.view import libraries

__all__ = ["compile_modules"]


def compile_modules(sources: Iterable[str]) -> None:
    """Compile installed modules where their bytecode can be written.

    Args:
        sources: Files that a foreign process named; those outside libraries are ignored.
    """
    if sys.dont_write_bytecode:
        return
    installed = libraries()
    wanted = [path for path in sources if _is_below(path, installed)]
    if wanted:
        subprocess.run(
            [sys.executable, "-P", "-m", "compileall", "-qq", "-j", "0", "-i", "-"],
            input="\n".join(wanted),
            text=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )


def _is_below(source: str, installed: Iterable[Path]) -> bool:
    path = Path(source)
    plain = path.suffix == ".py" and os.path.normpath(source) == source and source.isprintable()
    return (
        plain
        and any(root in path.parents for root in installed)
        and os.access(path.parent, os.W_OK)
    )
