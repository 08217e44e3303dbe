"""Losses and miners pass between the two packages."""

import math

import pytest
import torch
from pytorch_metric_learning import losses as theirs
from pytorch_metric_learning import miners as their_miners

import visavis.losses as losses
from visavis.errors import DataError
from visavis.losses import pytorch_metric_learning as pml
from visavis.losses.triplets import BatchHardest, TripletLoss


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
