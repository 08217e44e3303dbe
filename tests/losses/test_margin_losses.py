"""The public losses: one for each head, the same numbers as the machinery under them, and pytorch-metric-learning's."""

import inspect

import pytest
import torch
from torch import nn

import visavis.losses as losses
from visavis.errors import RecipeError
from visavis.losses.heads import HEADS
from visavis.losses.margin_losses import MarginLoss
from visavis.losses.partial_fc.margin_softmax import MarginSoftmax
from visavis.losses.triplets import MINERS, BatchHardest, EmbeddingMiner, SemiHard, TripletLoss

CLASSES = {cls.head_class: cls for cls in MarginLoss.__subclasses__()}


def batch(n=24, dim=8, classes=6):
    rng = torch.Generator().manual_seed(1)
    return torch.randn(n, dim, generator=rng), torch.arange(n) % classes


@pytest.mark.parametrize("name", sorted(HEADS))
def test_every_head_has_a_loss_of_its_name_with_its_arguments(name):
    loss_class = CLASSES[HEADS[name]]
    assert loss_class.__name__ + "Head" == HEADS[name].__name__
    assert getattr(losses, loss_class.__name__) is loss_class
    said = inspect.signature(loss_class).parameters
    assert list(said)[:2] == ["num_classes", "dim"]
    of_head = set(inspect.signature(HEADS[name].__init__).parameters) - {"self"}
    assert of_head | {"sample_rate", "label_smoothing", "seed"} <= set(said)


@pytest.mark.parametrize("name", sorted(HEADS))
def test_a_loss_is_the_machinery_with_its_head(name):
    x, y = batch()
    loss = CLASSES[HEADS[name]](6, 8, seed=3)
    seeded = {"seed": 3} if "seed" in inspect.signature(HEADS[name].__init__).parameters else {}
    plain = MarginSoftmax(HEADS[name](**seeded), num_classes=6, dim=8, seed=3)
    assert loss(x, y).item() == plain(x, y).item()
    with pytest.raises(RecipeError, match="unknown argument"):
        CLASSES[HEADS[name]](6, 8, margn=0.5)


def test_arcface_in_anybodys_loop_learns():
    x, y = batch(60, 8, 3)
    network = nn.Linear(8, 4)
    loss = losses.ArcFace(3, 4, margin=0.3, scale=16.0, seed=0)
    optimizer = torch.optim.SGD([*network.parameters(), *loss.parameters()], lr=0.1, momentum=0.9)
    values = []
    for _ in range(60):
        optimizer.zero_grad()
        value = loss(network(x + torch.eye(8)[y] * 4), y)
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.2 * values[0]


def test_partial_fc_is_an_argument():
    x, y = batch(24, 8, 6)
    loss = losses.CosFace(1000, 8, sample_rate=0.05, seed=0)
    loss(x, y).backward()
    assert loss.weight.grad is not None
    touched = (loss.weight.grad != 0).any(1).sum()
    assert 6 <= touched <= 56


@pytest.mark.parametrize("miner", EmbeddingMiner.__subclasses__())
def test_a_miner_finds_in_embeddings_what_its_name_finds_in_distances(miner):
    x, y = batch()
    found = miner(margin=0.25, generator=torch.Generator().manual_seed(0))(x, y)
    unit = torch.nn.functional.normalize(x)
    distances = (2 - 2 * unit @ unit.T).clamp(min=0).fill_diagonal_(0)
    wanted = MINERS[miner.name](distances, y, margin=0.25, generator=torch.Generator().manual_seed(0))
    assert len(found) == len(wanted) > 0
    assert (y[found.anchor] == y[found.positive]).all()
    assert (y[found.anchor] != y[found.negative]).all()


def test_the_triplet_loss_mines_by_name_and_by_object_and_takes_triplets():
    x, y = batch()
    by_name = TripletLoss(0.25, miner="batch_hardest")(x, y)
    by_object = TripletLoss(0.25, miner=BatchHardest())(x, y)
    given = TripletLoss(0.25, miner=SemiHard())(x, y, BatchHardest()(x, y))
    assert by_name.item() == by_object.item() == pytest.approx(given.item(), rel=1e-6)


def test_former_names_of_heads_and_arguments_work_with_a_line(caplog):
    from visavis.losses.heads import build_head

    assert build_head("subcentre_arcface", sub_centres=2).sub_centers == 2
    assert "now called subcenter_arcface" in caplog.text
    assert "now called sub_centers" in caplog.text


def test_center_means_of_earlier_checkpoints_are_read():
    loss = losses.ArcFace(6, 8, center_loss=0.1, seed=0)
    x, y = batch()
    loss(x, y)
    state = {k.replace("centers.", "centres."): v for k, v in loss.state_dict().items()}
    assert "centres.means" in state
    other = losses.ArcFace(6, 8, center_loss=0.1, seed=1)
    other.load_state_dict(state)
    assert torch.equal(other.centers.means, loss.centers.means)
