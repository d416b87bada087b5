"""The watched device records what an accelerator would wait for or refuse, and nothing else."""

from __future__ import annotations

import pytest
import torch
from watched_device import NAME, watched_device

OPERATIONS = {
    "product": (lambda x: x @ x.T, []),
    "scalar of the host": (lambda x: x * torch.tensor(2.0), []),
    "values of the host": (lambda x: torch.ones(3).double().nonzero().tolist(), []),
    "filled by a mask": (lambda x: x.detach().masked_fill(x > 0, 0.0), []),
    "index on the device": (lambda x: x[torch.zeros(2, dtype=torch.int64, device=NAME)], []),
    "item": (lambda x: x.sum().item(), ["host read"]),
    "truth": (lambda x: 1 if x.sum() > 0 else 2, ["host read"]),
    "list": (lambda x: x.detach().tolist(), ["host read"]),
    "nonzero": (lambda x: x.nonzero(), ["host read"]),
    "boolean index": (lambda x: x[x[:, 0] > 0], ["host read"]),
    "copy to the host": (lambda x: x.cpu(), ["host read"]),
    "copy to the device": (lambda x: torch.ones(3).to(NAME), ["upload"]),
    "list to the device": (lambda x: torch.tensor([1.0, 2.0], device=NAME), ["upload"]),
    "index of the host": (lambda x: x[torch.tensor([0, 1])], ["upload"]),
    "double": (lambda x: x.double(), ["float64"]),
    "sum in double": (lambda x: x.sum(dtype=torch.float64), ["float64"]),
    "backward in double": (lambda x: x.double().sum().backward(), ["float64"]),
    "tensors of both": (lambda x: x @ torch.ones(4, 2), ["two devices"]),
}


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_recorded_as_what_it_is(name, inference):
    operation, kinds = OPERATIONS[name]
    if inference and name.startswith("backward"):
        pytest.skip("there is no backward pass in inference mode")
    with watched_device() as watch, torch.inference_mode(inference):
        operation(torch.ones(3, 4, device=NAME, requires_grad=not inference))
    assert sorted({event.kind for event in watch.events}) == kinds


def test_what_is_unknown_to_the_device_is_an_error():
    with watched_device(), pytest.raises(NotImplementedError):
        torch.ones(3, device=NAME).unique()


def test_autocast_computes_products_in_16_bits_and_sums_in_32():
    x = torch.ones(3, 4, device=NAME)
    with watched_device():
        with torch.autocast(NAME, torch.bfloat16):
            assert (x @ x.T).dtype == torch.nn.functional.linear(x, x).dtype == torch.bfloat16
            assert (x + x).dtype == torch.float32
            with torch.autocast(NAME, enabled=False):
                assert (x @ x.T).dtype == torch.float32
        assert (x @ x.T).dtype == torch.float32


def test_an_event_names_the_innermost_line_of_the_project():
    from mta_framework.types import Batch

    ids = torch.ones(1, 3, dtype=torch.int64, device=NAME)
    with watched_device() as watch:
        Batch(ids, ids, ids[0], ids[0]).attended_A  # noqa: B018
    assert [(event.file, event.function) for event in watch.events] == [("types/__init__.py", "attended_A")]
