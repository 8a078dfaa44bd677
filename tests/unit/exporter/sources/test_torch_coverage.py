"""How much of a torch program inputs exercise."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from exporter.interface import Tensor
from exporter.sources.pytorch.coverage import ends_of_embeddings, exercised_by


class Net(nn.Module):
    """Of three units the second is never on; the table has five rows."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 3)
        self.table.weight.data = torch.tensor(
            [[1.0, -1.0, 1.0], [-1.0, -1.0, 1.0]] + 3 * [[0.0] * 3]
        )

    def forward(self, code: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.table(code)).sum(1)


def test_units_that_were_on_and_off_and_rows_that_were_read() -> None:
    codes = torch.tensor([[0, 0], [0, 0]])
    program = torch.export.export(Net(), (codes,))

    def tensors(inputs: object) -> list[torch.Tensor]:
        return [torch.tensor(inputs["code"])]  # type: ignore[index]

    one = {"code": np.zeros((2, 2), np.int64)}
    other = {"code": np.array([[0, 1], [1, 0]])}
    assert exercised_by(program, tensors, [one]) == {"units": (0, 3), "embedding rows": (1, 5)}
    both = {"units": (1, 3), "embedding rows": (2, 5)}
    assert exercised_by(program, tensors, [one, other]) == both
    ends, beyond = ends_of_embeddings(program, [Tensor("code", "INT64", ("rows", 2))])
    assert (ends.input, list(ends.values), list(beyond.values)) == ("code", [0, 4], [-1, 5])
