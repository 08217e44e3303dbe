"""Which device is chosen and how it is called in the log; every branch for devices this machine has not, on stubs."""

import logging
import platform
import subprocess
import sys

import pytest
import torch

from visavis.distributed import device as devices
from visavis.distributed import launch
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


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_autocast_takes_the_precision_of_the_recipe(precision, dtype):
    x = torch.ones(2, 2)
    with devices.autocast(torch.device("cpu"), precision):
        assert (x @ x).dtype == dtype
    with devices.autocast(torch.device("cpu"), "fp32"):
        assert (x @ x).dtype == torch.float32


def several(monkeypatch, kind):
    """Two processes of which this is the second, on a stub device; returns what the group was made of."""
    made = {}
    told = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(launch, "choose_device", lambda wanted, local_rank: torch.device(kind))
    monkeypatch.setattr(launch.dist, "rendezvous", lambda *_, **__: iter([("store", 1, 2)]))
    monkeypatch.setattr(launch, "meet", lambda store, *_, **__: store)
    monkeypatch.setattr(launch.dist, "init_process_group", lambda backend, **kw: made.update(kw, backend=backend))
    return made


@pytest.mark.parametrize(("kind", "backend"), [("cuda:1", "nccl"), ("cpu", "gloo")])
def test_processes_meet_over_the_backend_of_their_device(monkeypatch, caplog, kind, backend):
    made = several(monkeypatch, kind)
    with caplog.at_level(logging.INFO):
        world = launch.setup()
    assert (made["backend"], made["rank"], made["world_size"], made["store"]) == (backend, 1, 2, "store")
    assert (world.rank, world.size, str(world.device)) == (1, 2, kind)
    assert backend in caplog.text


def test_a_device_without_a_backend_trains_in_one_process(monkeypatch):
    several(monkeypatch, "mps")
    with pytest.raises(RecipeError, match="mps cannot train in several processes"):
        launch.setup()


_NPU = """
import os, types, torch
torch.utils.rename_privateuse1_backend("npu")  # what torch_npu does when torch loads it
seen, made = [], {}
stub = types.ModuleType("torch.npu")
stub.is_available = lambda: True
stub.set_device = lambda chosen: seen.append(str(chosen))
stub.device_count = lambda: 8
stub.get_amp_supported_dtype = lambda: [torch.float16, torch.bfloat16]
torch._register_device_module("npu", stub)
from visavis.distributed import device, launch
device.AVAILABLE["cuda"] = lambda: False
chosen = device.choose_device("auto", local_rank=3)
assert (str(chosen), seen) == ("npu:3", ["npu:3"]), (chosen, seen)
assert str(device.choose_device("npu:5")) == "npu:5" and seen[-1] == "npu:5"
assert device.describe_device(chosen) == "npu:3"
for precision, dtype in (("bf16", torch.bfloat16), ("fp16", torch.float16)):
    with device.autocast(chosen, precision):
        assert torch.is_autocast_enabled("npu") and torch.get_autocast_dtype("npu") == dtype
assert not torch.is_autocast_enabled("npu")
os.environ |= {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "3", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
launch.dist.rendezvous = lambda *_, **__: iter([("store", 3, 8)])
launch.meet = lambda store, *_, **__: store
launch.dist.init_process_group = lambda backend, **kw: made.update(kw, backend=backend)
world = launch.setup()
assert (made["backend"], made["world_size"], str(world.device)) == ("hccl", 8, "npu:3"), made
print("every branch ran")
"""


def test_an_npu_is_found_described_cast_to_and_joined_over_hccl():
    """In a process of its own: a renamed device type cannot be taken back."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", _NPU], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "every branch ran" in done.stdout
