"""Losses and miners pass between the two packages."""

import math

import pytest
import torch
from pytorch_metric_learning import losses as theirs
from pytorch_metric_learning import miners as their_miners
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.reducers import MeanReducer

import visavis.losses as losses
from visavis.errors import DataError
from visavis.losses import pytorch_metric_learning as pml
from visavis.losses.triplets import BatchAll, BatchHardest, SemiHard, TripletLoss


def batch(n=24, dim=8, classes=6):
    rng = torch.Generator().manual_seed(1)
    return torch.randn(n, dim, generator=rng), torch.arange(n) % classes


def test_arcface_is_pytorch_metric_learnings_arcface():
    x, y = batch()
    margin = 0.3
    mine = losses.ArcFace(6, 8, margin=margin, scale=16.0, seed=0).double()
    other = theirs.ArcFaceLoss(6, 8, margin=math.degrees(margin), scale=16.0)
    other.W.data = mine.weight.detach().T.clone()
    x = x.double()
    assert mine(x, y).item() == pytest.approx(other(x, y).item(), rel=1e-6)


def test_miners_and_losses_pass_between_the_two_packages():
    x, y = batch()
    triplets = pml.MinerFrom(their_miners.TripletMarginMiner(margin=0.2, type_of_triplets="all"))(x, y)
    assert len(triplets) > 0
    assert TripletLoss(0.2)(x, y, triplets).item() > 0
    indices = pml.MinerFor(BatchHardest())(x, y)
    assert [i.dtype for i in indices] == [torch.int64] * 3
    assert theirs.TripletMarginLoss(margin=0.2)(x, y, indices).item() > 0
    wrapped = pml.LossFor(losses.CosFace(6, 8, seed=0))
    assert wrapped(x, y, indices).item() == losses.CosFace(6, 8, seed=0)(x, y).item()
    assert (
        pml.LossFor(TripletLoss(0.2))(x, y, indices).item() == TripletLoss(0.2)(x, y, pml.as_triplets(indices)).item()
    )
    with pytest.raises(DataError, match="pair miners give four"):
        pml.MinerFrom(their_miners.MultiSimilarityMiner())(x, y)


HEADS = {  # ours, theirs: margins in degrees there
    "arcface": (
        lambda: losses.ArcFace(6, 8, margin=0.5, scale=16.0, seed=0),
        lambda: theirs.ArcFaceLoss(6, 8, margin=math.degrees(0.5), scale=16.0),
    ),
    "cosface": (
        lambda: losses.CosFace(6, 8, margin=0.35, scale=16.0, seed=0),
        lambda: theirs.CosFaceLoss(6, 8, margin=0.35, scale=16.0),
    ),
    "subcenter_arcface": (
        lambda: losses.SubCenterArcFace(6, 8, margin=0.5, scale=16.0, sub_centers=3, seed=0),
        lambda: theirs.SubCenterArcFaceLoss(
            num_classes=6, embedding_size=8, margin=math.degrees(0.5), scale=16.0, sub_centers=3
        ),
    ),
    "normface": (
        lambda: losses.NormFace(6, 8, scale=16.0, seed=0),
        lambda: theirs.NormalizedSoftmaxLoss(6, 8, temperature=1 / 16.0),
    ),
    "asoftmax": (  # without annealing, λ = 0
        lambda: losses.ASoftmax(6, 8, margin=4, lambda_base=0.0, lambda_min=0.0, seed=0),
        lambda: theirs.SphereFaceLoss(6, 8, margin=4, scale=1.0),
    ),
}


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")  # in their SphereFace
@pytest.mark.parametrize("name", HEADS)
def test_a_heads_loss_and_gradients_are_those_of_their_code(name):
    """Against the code itself, of features of any length, so that a formula misread twice would show."""
    ours, other = (make().double() for make in HEADS[name])
    x, y = batch(48)
    pairs = []
    for module in (ours, other):
        features = (3 * x).double().requires_grad_()
        weight = module.weight if module is ours else module.W
        if module is other:
            other.W.data = ours.weight.detach().T.clone()
        loss = module(features, y)
        loss.backward()
        pairs.append((loss.detach(), features.grad, weight.grad if module is ours else weight.grad.T))
    for mine, his in zip(*pairs, strict=True):
        torch.testing.assert_close(mine, his, rtol=1e-6, atol=1e-8)


def found_by(miner, x, y):
    return set(zip(*(index.tolist() for index in miner(x, y)), strict=True))


def their_triplets(kind, x, y, margin=0.2):
    return their_miners.TripletMarginMiner(margin, type_of_triplets=kind, distance=LpDistance(power=2))(x, y)


def test_triplet_loss_is_that_of_their_code_on_their_triplets():
    x, y = batch(32, classes=5)
    indices = their_triplets("all", x, y)
    other = theirs.TripletMarginLoss(margin=0.2, distance=LpDistance(power=2), reducer=MeanReducer())
    pairs = []
    for loss_of in (lambda f: TripletLoss(0.2)(f, y, pml.as_triplets(indices)), lambda f: other(f, y, indices)):
        features = x.clone().requires_grad_()
        loss = loss_of(features)
        loss.backward()
        pairs.append((loss.detach(), features.grad))
    for mine, his in zip(*pairs, strict=True):
        torch.testing.assert_close(mine, his, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_miners_find_what_their_code_finds(seed):
    x, _ = batch(36)
    x = x + torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
    y = torch.randint(0, 5, (36,), generator=torch.Generator().manual_seed(seed))
    every = set(zip(*(i.tolist() for i in their_triplets("all", x, y)), strict=True))
    assert found_by(pml.MinerFor(BatchAll(margin=0.2)), x, y) == every
    hardest = their_miners.BatchHardMiner(distance=LpDistance(power=2))(x, y)
    assert found_by(pml.MinerFor(BatchHardest()), x, y) == set(zip(*(i.tolist() for i in hardest), strict=True))
    semi = set(zip(*(i.tolist() for i in their_triplets("semihard", x, y)), strict=True))
    ours = found_by(pml.MinerFor(SemiHard(margin=0.2)), x, y)  # of theirs, the closest negative of each pair
    assert ours
    assert ours <= semi
    assert {(a, p) for a, p, _ in ours} == {(a, p) for a, p, _ in semi}
