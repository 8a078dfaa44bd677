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
    """Compile modules where their bytecode can be written.

    A foreign process named them: what is not in an installed library is ignored.
    """
    if sys.dont_write_bytecode:
        return
    installed = libraries()
    wanted = [path for path in sources if _can_be_compiled(path, installed)]
    if wanted:
        subprocess.run(
            [sys.executable, "-P", "-m", "compileall", "-qq", "-j", "0", "-i", "-"],
            input="\n".join(wanted),
            text=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )


def _can_be_compiled(source: str, installed: Iterable[Path]) -> bool:
    path = Path(source)
    plain = path.suffix == ".py" and os.path.normpath(source) == source and source.isprintable()
    below = any(root in path.parents for root in installed)
    return plain and below and os.access(path.parent, os.W_OK)
