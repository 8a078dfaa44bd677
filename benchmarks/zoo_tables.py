"""The figures of the model zoo: what a bare script and stlab make of its models."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

from rich.table import Table

from tests.zoo.blind_spots import BLIND_SPOT_KINDS, BLIND_SPOTS
from tests.zoo.catalogue import KINDS, ROWS, ZOO, Model

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Outcome", "blind_table_of", "table_of"]


@dataclass
class Outcome:
    """What became of one model.

    Attributes:
        exported: Whether there is something to serve.
        right: The numbers of rows at which it answers as the registered model does.
        reason: Why there is nothing to serve.
        wrong: The numbers of rows at which it gives other answers; of models with blind spots.
        strength: How far the proof covers the model, where the export says so.
        seconds: How long the export took; of models with blind spots.
    """

    exported: bool
    right: list[int]
    reason: str = ""
    wrong: list[int] = field(default_factory=list)
    strength: str = ""
    seconds: float = 0.0

    @property
    def caught(self) -> bool:
        """Whether it is refused, or right on what its example hides."""
        return not self.exported or len(self.right) == len(ROWS)


def counted(outcomes: Mapping[str, Outcome], models: Sequence[Model]) -> list[str]:
    """Return the figures of one way: exported, right at all rows, silently wrong, refused."""
    servable = [outcomes[model.name] for model in models if model.servable]
    others = [outcomes[model.name] for model in models if not model.servable]
    right = sum(len(o.right) == len(ROWS) for o in servable)
    wrong = sum(o.exported and len(o.right) < len(ROWS) for o in servable)
    wrong += sum(o.exported for o in others)
    refused = sum(not o.exported for o in others)
    exported = sum(o.exported for o in (*servable, *others))
    return [
        str(exported),
        f"{right} of {len(servable)}",
        str(wrong),
        f"{refused} of {len(others)}",
    ]


def table_of(ways: Mapping[str, Mapping[str, Outcome]], chosen: Sequence[Model]) -> Table:
    """Return the figures of both ways, for every kind of model and for all of them."""
    table = Table(
        "", "", "exported", "right at 1, 2, 5, 16 rows", "silently wrong", "refused rightly"
    )
    for kind, members in (*KINDS.items(), ("all", ZOO)):
        models = [model for model in members if model in chosen]
        if models:
            for way, outcomes in ways.items():
                table.add_row(f"{len(models)} {kind}", way, *counted(outcomes, models))
            table.add_section()
    return table


def blind_table_of(ways: Mapping[str, Mapping[str, Outcome]], chosen: Sequence[Model]) -> Table:
    """Return what either way makes of models with blind spots."""
    columns = ("caught", "silently wrong", "fails when called", "coverage strength", "seconds")
    table = Table("", "", *columns, title="models with blind spots")
    for kind, members in (*BLIND_SPOT_KINDS.items(), ("all", BLIND_SPOTS)):
        models = [model for model in members if model in chosen]
        if models:
            for way, outcomes in ways.items():
                found = [outcomes[model.name] for model in models]
                caught = sum(outcome.caught for outcome in found)
                wrong = sum(bool(outcome.wrong) for outcome in found)
                strengths = Counter(outcome.strength for outcome in found if outcome.strength)
                table.add_row(
                    f"{len(models)} {kind}",
                    way,
                    f"{caught} of {len(models)}",
                    str(wrong),
                    str(len(found) - caught - wrong),
                    ", ".join(f"{count} {word}" for word, count in strengths.most_common()),
                    f"{median(outcome.seconds for outcome in found):.1f}",
                )
            table.add_section()
    return table
