"""Which device is chosen and how it is called in the log."""

import platform

import pytest
import torch

from visavis.distributed import device as devices
from visavis.distributed.device import choose_device, describe_device
from visavis.errors import RecipeError


def test_a_device_is_described_by_what_it_is(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"NVIDIA H100 number {device.index}")
    assert describe_device(torch.device("cuda:1")) == "cuda:1 (NVIDIA H100 number 1)"
    assert describe_device(torch.device("mps")) == "mps"
    said = describe_device(torch.device("cpu"))
    assert said.startswith(f"cpu ({torch.get_num_threads()} threads of ")
    assert said.endswith(f"{platform.machine()})")


@pytest.mark.parametrize(
    ("there", "chosen"), [(("cpu",), "cpu"), (("mps", "cpu"), "mps"), (("cuda", "mps", "cpu"), "cuda:2")]
)
def test_auto_takes_the_first_accelerator_that_is_there(monkeypatch, there, chosen):
    taken = []
    monkeypatch.setattr(devices, "AVAILABLE", {name: lambda name=name: name in there for name in devices.AVAILABLE})
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    assert choose_device("auto", local_rank=2) == torch.device(chosen)
    assert taken == ([torch.device("cuda:2")] if "cuda" in there else [])


def test_a_device_that_is_not_there_is_named_with_those_that_are(monkeypatch):
    monkeypatch.setattr(devices, "AVAILABLE", {"cuda": lambda: False, "mps": lambda: True, "cpu": lambda: True})
    with pytest.raises(RecipeError, match=r"loop\.device 'cuda:1' is not on this machine; there is mps, cpu"):
        choose_device("cuda:1")
    with pytest.raises(RecipeError, match="'tpu' is not on this machine"):
        choose_device("tpu")
