"""A network and its checkpoints in the forms they are published in."""

import pytest


@pytest.fixture(scope="module")
def mobilefacenet():
    import torch

    from visavis.backbones import build_backbone

    torch.manual_seed(0)
    return build_backbone("mobilefacenet", size=(112, 96), dim=128).state_dict()


@pytest.fixture(params=["zip", "legacy", "safetensors"])
def checkpoint(request, mobilefacenet, tmp_path):
    import torch

    path = tmp_path / ("net.safetensors" if request.param == "safetensors" else "net.ckpt")
    if request.param == "safetensors":
        from safetensors.torch import save_file

        save_file(mobilefacenet, path)
    else:
        nested = {"epoch": 3, "net_state_dict": {"module." + k: v for k, v in mobilefacenet.items()}}
        torch.save(nested, path, _use_new_zipfile_serialization=request.param == "zip")
    return path
