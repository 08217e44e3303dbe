"""Checkpoints of every format, damaged ones, and those that would run code."""

import pytest
import torch

from visavis.errors import ModelFormatError
from visavis.models.checkpoints import read_checkpoint


def test_checkpoints_of_every_format_are_read(checkpoint, mobilefacenet):
    state = read_checkpoint(checkpoint)
    assert list(state) == list(mobilefacenet) or set(state) == set(mobilefacenet)
    assert all(torch.equal(state[key], mobilefacenet[key]) for key in mobilefacenet)


@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_damaged_checkpoints_are_named(damage, suffix, tmp_path, mobilefacenet):
    path = tmp_path / ("net" + suffix)
    if suffix == ".pth":
        torch.save(mobilefacenet, path)
    else:
        from safetensors.torch import save_file

        save_file(mobilefacenet, path)
    data = {"truncated": path.read_bytes()[:40_000], "empty": b"", "text": b"<html>404 not found</html>"}[damage]
    path.write_bytes(data)
    with pytest.raises(ModelFormatError, match=r"net\.\w+: damaged"):
        read_checkpoint(path)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(ModelFormatError, match="got no file"):
        read_checkpoint(tmp_path / "no.pth")
    with pytest.raises(ModelFormatError, match="got a folder"):
        read_checkpoint(tmp_path)


def test_what_holds_no_state_dict_is_listed(tmp_path):
    path = tmp_path / "x.pth"
    torch.save({"epoch": 1, "weights": {"a": torch.zeros(1)}}, path)
    with pytest.raises(ModelFormatError, match="no state dict among 2 entries: epoch, weights; name one with --key"):
        read_checkpoint(path)
    assert set(read_checkpoint(path, key="weights")) == {"a"}
    with pytest.raises(ModelFormatError, match="holds no entry 'weight'"):
        read_checkpoint(path, key="weight")
    torch.save({"a": torch.tensor([float("nan")])}, path)
    with pytest.raises(ModelFormatError, match="NaN"):
        read_checkpoint(path)
