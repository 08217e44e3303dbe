"""The checkpoint on disk: whole or not at all, a file a rank, any number of ranks, and those of earlier formats."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
import yaml

from visavis.errors import DataError, ModelFormatError
from visavis.losses.partial_fc.sharded_checkpoint import RowShard
from visavis.train import checkpoint
from visavis.train.checkpoint import load_checkpoint, open_checkpoint, save_checkpoint
from visavis.train.loop import train
from visavis.train.run_folder import resume_recipe
from visavis.train.run_logger import read_metrics

OLD = Path(__file__).parent / "fixtures" / "run_format_1"


def state(value=0.0):
    return {
        "step": 3,
        "none": None,
        "rate": 0.1 + 0.2,
        "nested": {"list": [1, {"deep": torch.full((2, 3), value)}], "scalar": torch.tensor(7)},
        "half": torch.ones(3, dtype=torch.bfloat16),
        "empty": torch.zeros(0, 4),
    }


def test_what_is_saved_is_read_as_it_was(tmp_path):
    save_checkpoint(tmp_path, state(2.5), step=3)
    found = load_checkpoint(tmp_path)
    assert (found["step"], found["none"], found["rate"]) == (3, None, 0.1 + 0.2)
    assert torch.equal(found["nested"]["list"][1]["deep"], torch.full((2, 3), 2.5))
    assert found["nested"]["scalar"] == 7
    assert found["half"].dtype == torch.bfloat16
    assert found["empty"].shape == (0, 4)
    rows = open_checkpoint(tmp_path)["nested"]["list"][1]["deep"].rows(1, 2)
    assert torch.equal(rows, torch.full((1, 3), 2.5))


def test_a_new_checkpoint_takes_the_place_of_the_old_one(tmp_path):
    save_checkpoint(tmp_path, state(1.0), step=3)
    save_checkpoint(tmp_path, state(2.0), step=3)
    assert len(list((tmp_path / "last").iterdir())) == 2
    assert load_checkpoint(tmp_path)["nested"]["list"][1]["deep"][0, 0] == 2.0


def die(moment, when):
    own = getattr(checkpoint, moment)
    setattr(checkpoint, moment, lambda *a, **k: (own(*a, **k) if when == "after" else None, os._exit(9)))


@pytest.mark.parametrize("moment", ["_write_shard", "write_atomically", "remove_others"])
def test_a_kill_at_any_moment_leaves_one_checkpoint_whole(tmp_path, moment):
    """The process dies before or after each part of the writing."""
    for when in ("before", "after"):
        run = tmp_path / when
        save_checkpoint(run, state(1.0), step=1)
        if (pid := os.fork()) == 0:
            die(moment, when)
            save_checkpoint(run, state(2.0), step=2)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
        replaced = (moment, when) == ("write_atomically", "after") or moment == "remove_others"
        assert load_checkpoint(run)["nested"]["list"][1]["deep"][0, 0] == (2.0 if replaced else 1.0)
        save_checkpoint(run, state(3.0), step=3)  # leftovers go
        assert len(list((run / "last").iterdir())) == 2


def three_ranks(rank, folder):
    from visavis.distributed import launch

    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.FileStore(f"{folder}/meet", 3), rank=rank, world_size=3
    )
    world = launch.World(rank, 3, rank, torch.device("cpu"))
    start, stop = [0, 4, 4, 10][rank : rank + 2]  # the second rank has no rows
    rows = torch.arange(20.0).view(10, 2)[start:stop]
    save_checkpoint(
        Path(folder), {"rows": RowShard(rows, start, 10), "same": torch.tensor([rank])}, step=1, world=world
    )
    if rank == 1:
        checkpoint._write_shard = lambda path, tensors: "the disk is full"
    with pytest.raises(DataError, match=r"disk is full.*previous one is untouched"):
        save_checkpoint(Path(folder), {"rows": RowShard(rows + 1, start, 10)}, step=2, world=world)
    torch.distributed.destroy_process_group()


def test_each_rank_writes_its_own_rows_and_a_failure_of_one_is_that_of_all(tmp_path):
    mp.start_processes(three_ranks, (str(tmp_path),), nprocs=3, start_method="spawn")
    found = open_checkpoint(tmp_path)
    whole = torch.arange(20.0).view(10, 2)
    assert torch.equal(found["rows"].whole(), whole)
    for start, stop in ((0, 3), (3, 7), (4, 4), (7, 10), (10, 10)):
        assert torch.equal(found["rows"].rows(start, stop), whole[start:stop])
    assert found["same"].whole().tolist() == [0]
    files = sorted(p.name for p in next((tmp_path / "last").glob("checkpoint-*")).iterdir())
    assert files == [f"rank-{rank}-of-3.safetensors" for rank in range(3)]


@pytest.mark.parametrize(
    "damage",
    [
        lambda index: "",
        lambda index: "[" * 100_000,
        lambda index: json.dumps({**index, "folder": "../../elsewhere"}),
        lambda index: json.dumps({**index, "tensors": {}}),
        lambda index: json.dumps({**index, "tensors": {**index["tensors"], "half": {"shape": [3], "parts": []}}}),
        lambda index: json.dumps({**index, "values": None}),
    ],
)
def test_a_damaged_or_hostile_index_is_refused(tmp_path, damage):
    save_checkpoint(tmp_path, state(), step=1)
    path = tmp_path / "last" / "checkpoint.json"
    path.write_text(damage(json.loads(path.read_text())))
    with pytest.raises(ModelFormatError, match="damaged checkpoint"):
        load_checkpoint(tmp_path)


def test_a_missing_or_cut_file_is_named(tmp_path):
    save_checkpoint(tmp_path, state(), step=1)
    file = next((tmp_path / "last").glob("checkpoint-*/*"))
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(ModelFormatError, match=r"rank-0-of-1\.safetensors: damaged checkpoint"):
        load_checkpoint(tmp_path)
    file.unlink()
    with pytest.raises(ModelFormatError, match=r"rank-0-of-1\.safetensors: damaged checkpoint"):
        load_checkpoint(tmp_path)


def test_a_newer_format_is_refused_by_name(tmp_path):
    (tmp_path / "last").mkdir()
    (tmp_path / "last" / "checkpoint.json").write_text('{"format": 3}')
    with pytest.raises(ModelFormatError, match=r"format 1 to 2, got 3.*newer one"):
        load_checkpoint(tmp_path)


def test_a_run_of_format_1_goes_on_as_it_would_have(tmp_path, caplog):
    """A run that the first release left at step 4 of 8 gives the losses it gave there, and leaves format 2."""
    run = tmp_path / "old"
    shutil.copytree(OLD, run)
    recipe = resume_recipe(run)
    assert (recipe.loop.batch_size, recipe.loop.device_batch, recipe.preprocess.antialias) == (16, 0, "area")
    result = train(recipe, run, resume=True)
    assert "names no identities" in caplog.text
    expected = {int(step): loss for step, loss in json.loads((OLD / "continued.json").read_text()).items()}
    found = {line["step"]: line["loss"] for line in read_metrics(run) if "loss" in line}
    assert len(expected) == 4
    assert {step: found[step] for step in expected} == pytest.approx(expected, rel=1e-5)
    assert result.steps == 8
    assert load_checkpoint(run)["step"] == 8
    assert not (run / "last" / "checkpoint.pt").exists()
    assert "accumulate" not in yaml.safe_load((run / "recipe.yaml").read_text())["loop"]


@pytest.mark.parametrize(
    ("images", "batch", "accumulate", "expected"),
    [(4 * 64, 8, 4, (64, 8)), (4 * 64, 8, 1, (64, 8)), (4 * 8, 8, 1, (8, 0)), (None, 8, 2, (16, 8))],
)
def test_the_batch_of_format_1_becomes_the_global_one(tmp_path, images, batch, accumulate, expected):
    """The model card knows how many images were seen in 4 steps: so many devices there were."""
    run = tmp_path / "old"
    shutil.copytree(OLD, run)
    state = torch.load(run / "last" / "checkpoint.pt", weights_only=True)
    recipe = yaml.safe_load(state["recipe"])
    recipe["loop"] |= {"batch_size": batch, "accumulate": accumulate}
    torch.save({**state, "recipe": yaml.safe_dump(recipe)}, run / "last" / "checkpoint.pt")
    card = json.loads((run / "last" / "card.json").read_text())
    card["notes"] = {"images_seen": images} if images else {}
    (run / "last" / "card.json").write_text(json.dumps(card))
    loop = resume_recipe(run).loop
    assert (loop.batch_size, loop.device_batch) == expected
    assert open_checkpoint(run)["images"] == 4 * expected[0]


def test_a_kept_run_of_format_2_goes_on_as_it_did(tmp_path):
    """A golden run of the release that brought format 2: opened by every later one, with the losses it gave then."""
    run, kept = tmp_path / "run", OLD.with_name("run_format_2")
    shutil.copytree(kept, run)
    result = train(resume_recipe(run), run, resume=True)
    expected = {int(step): loss for step, loss in json.loads((kept / "continued.json").read_text()).items()}
    found = {line["step"]: line["loss"] for line in read_metrics(run) if line["step"] > 4 and "loss" in line}
    assert result.steps == 8
    assert found == pytest.approx(expected, rel=1e-5)


def test_an_index_too_large_to_be_one_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "last" / "checkpoint.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"format": checkpoint.FORMAT, "filler": "x" * 100}))
    monkeypatch.setattr(checkpoint, "_MAX_INDEX_BYTES", path.stat().st_size - 1)
    with pytest.raises(ModelFormatError, match="more than"):
        open_checkpoint(tmp_path)
    monkeypatch.setattr(checkpoint, "_MAX_INDEX_BYTES", path.stat().st_size)
    with pytest.raises(ModelFormatError) as caught:  # of a size that is read, and found to be no index
        open_checkpoint(tmp_path)
    assert "more than" not in str(caught.value)
