"""Classes split over two and three processes train as in one, for every head; checkpoints fit any number of them."""

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from visavis.losses.heads import HEADS, build_head
from visavis.losses.partial_fc.margin_softmax import MarginSoftmax
from visavis.losses.partial_fc.sharded_checkpoint import (
    join_rows,
    load_module_state,
    load_optimizer_state,
    module_state,
    optimizer_state,
)
from visavis.losses.partial_fc.sparse_sgd import SparseSGD

C, D, B = 37, 8, 12  # 37 classes: 18 and 19 on two ranks, 12, 12 and 13 on three
STEPS, SAVED = 5, 2
CUTS = {1: [0, B], 2: [0, 5, B], 3: [0, 3, 4, B]}  # ranks have batches of different sizes, too
RUNS = {
    **{name: (name, {}, {}) for name in HEADS},
    "sphereface_r v2": ("sphereface_r", {"version": "v2", "features": "soft", "detach_margin": False}, {}),
    "asoftmax S7": ("asoftmax", {"legacy_smoothing": 0.15}, {}),
    "elastic_cosface+": ("elastic_cosface", {"plus": True}, {}),
    "learned scale": ("normface", {"learn_scale": True}, {"label_smoothing": 0.1}),
    "softmax, sampled": ("softmax", {}, {"sample_rate": 0.4, "sparse": True}),
    "arcface, sampled": ("arcface", {}, {"sample_rate": 0.4, "sparse": True}),
    "adacos, sampled": ("adacos", {}, {"sample_rate": 0.4, "sparse": True}),
    "sampled, dense": ("cosface", {}, {"sample_rate": 0.3, "label_smoothing": 0.1}),
    "almost nothing sampled": ("arcface", {}, {"sample_rate": 0.01, "sparse": True}),
    "everything": (
        "subcenter_arcface", {}, {"sample_rate": 0.3, "sparse": True, "center_loss": 0.1, "norm_weight_power": 1.0},
    ),
}  # fmt: skip
RESUMED = ("softmax, sampled", "asoftmax", "curricularface", "elastic_cosface+", "everything")


def build(run):
    name, args, kw = RUNS[run]
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, D)).double()
    head = MarginSoftmax(build_head(name, **args), num_classes=C, dim=D, chunk=5, seed=3, **kw).double()
    groups = [{"params": network.parameters()}, {"params": head.parameters()}]
    optimizer = SparseSGD(groups, lr=0.1, momentum=0.9, weight_decay=1e-3, nesterov=run == "arcface")
    return nn.ModuleDict({"network": network, "head": head}), optimizer


def batch(step, rank, size):
    generator = torch.Generator().manual_seed(step)
    x, y = torch.randn(B, 6, dtype=torch.double, generator=generator), torch.randint(0, C, (B,), generator=generator)
    rows = slice(CUTS[size][rank], CUTS[size][rank + 1])
    return 3 * x[rows], y[rows]


def steps(modules, optimizer, first, last, rank, size, wrapped=None):
    network = modules["network"] if wrapped is None else wrapped
    losses = []
    for step in range(first, last):
        x, y = batch(step, rank, size)
        optimizer.zero_grad()
        loss = modules["head"](network(x), y)
        loss.backward()
        if size > 1 and wrapped is None:  # what DistributedDataParallel does, at a tenth of its cost to set up
            for parameter in network.parameters():
                dist.all_reduce(parameter.grad)
                parameter.grad /= size
        optimizer.step()
        losses.append(loss.item())
    return losses


def own_part(modules, optimizer):
    return {"module": module_state(modules), "optimizer": optimizer_state(optimizer, modules)}


def joined(folder, run, size, what):
    """The losses, and the state that the parts of all ranks make."""
    parts = [torch.load(folder / f"{run}.{size}.{rank}.{what}", weights_only=False) for rank in range(size)]
    return parts[0][0], join_rows([state for _, state in parts])


def work(rank, size, folder):
    """Train every run for 5 steps, saving after 2; then resume what two processes saved."""
    torch.set_num_threads(1)
    if size > 1:
        dist.init_process_group("gloo", store=dist.FileStore(f"{folder}/meet{size}", size), rank=rank, world_size=size)
    for run in RUNS:
        modules, optimizer = build(run)
        wrapped = nn.parallel.DistributedDataParallel(modules["network"]) if size > 1 and run == "arcface" else None
        losses = steps(modules, optimizer, 0, SAVED, rank, size, wrapped)
        torch.save(own_part(modules, optimizer), f"{folder}/{run}.{size}.{rank}.saved")
        losses += steps(modules, optimizer, SAVED, STEPS, rank, size, wrapped)
        torch.save((losses, own_part(modules, optimizer)), f"{folder}/{run}.{size}.{rank}.end")
        if size != 2 and run in RESUMED:
            modules, optimizer = build(run)
            saved = join_rows([torch.load(f"{folder}/{run}.2.{r}.saved", weights_only=False) for r in (1, 0)])
            load_module_state(modules, saved["module"])
            load_optimizer_state(optimizer, modules, saved["optimizer"])
            losses = steps(modules, optimizer, SAVED, STEPS, rank, size)
            torch.save((losses, own_part(modules, optimizer)), f"{folder}/{run}.{size}.{rank}.resumed")
    if size > 1:
        dist.destroy_process_group()


def largest_difference(one, two):
    if isinstance(one, dict):
        assert one.keys() == two.keys()
        return max((largest_difference(one[key], two[key]) for key in one), default=0.0)
    if isinstance(one, list | tuple):
        assert len(one) == len(two)
        return max((largest_difference(a, b) for a, b in zip(one, two, strict=True)), default=0.0)
    if isinstance(one, torch.Tensor):
        assert one.shape == two.shape
        return (one.double() - two.double()).abs().max().item() if one.numel() else 0.0
    return abs(one - two) if isinstance(one, float) else float(one != two)


def test_two_and_three_processes_equal_one_and_checkpoints_fit_all(tmp_path):
    mp.start_processes(work, (2, str(tmp_path)), nprocs=2, start_method="spawn")
    work(0, 1, str(tmp_path))
    mp.start_processes(work, (3, str(tmp_path)), nprocs=3, start_method="spawn")
    for run in RUNS:
        alone = joined(tmp_path, run, 1, "end")
        rows = alone[1]["module"]["head.weight"]
        assert len(rows) == C * (3 if "subcenter" in RUNS[run][0] else 1)
        for size in (2, 3):
            assert largest_difference(alone, joined(tmp_path, run, size, "end")) < 1e-10, (run, size)
        for size in (1, 3) if run in RESUMED else ():  # saved on 2, resumed on 1 and on 3
            losses, state = joined(tmp_path, run, size, "resumed")
            assert largest_difference(alone[0][SAVED:], losses) < 1e-10, (run, size)
            assert largest_difference(alone[1], state) < 1e-10, (run, size)
