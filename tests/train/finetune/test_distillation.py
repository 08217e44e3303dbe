"""Distillation: relational losses against their equations, the teacher's own preprocessing, a student's gain."""

import signal
from itertools import permutations

import numpy as np
import pytest
import torch
from torch.nn.functional import huber_loss

from visavis.backbones import build_backbone
from visavis.data.sources import open_source
from visavis.errors import DataError, ModelFormatError, RecipeError
from visavis.models.card import ModelCard
from visavis.models.torch import TorchEmbedder, load_model, save_model
from visavis.train.checkpoint import load_checkpoint
from visavis.train.finetune.distillation import Distillation, open_teacher, relational_angle, relational_distance
from visavis.train.loop import train
from visavis.train.recipe import DistillRecipe, parse_recipe
from visavis.train.run_folder import resume_recipe
from visavis.train.run_logger import Observer, read_metrics
from visavis.vision.preprocessing import PreprocessSpec, fit_crops


def student(folder, *, steps=4, **sections):
    values = {
        "name": "student",
        "data": {"source": str(folder), "workers": 0},
        "preprocess": {"size": [32, 32]},
        "augment": {"flip": 0.5, "shift": 0.05},
        "backbone": {"name": "small", "dim": 12, "args": {"width": 8}},
        "head": {"name": "none"},
        "optimizer": {"lr": 0.05, "clip_norm": 5.0},
        "loop": {"batch_size": 8, "steps": steps, "log_every": 2, "checkpoint_every": 100, "device": "cpu"},
    }
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section} if isinstance(section, dict) else section
    return parse_recipe(values)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A network of another size, channel order, range and dimension, whose card says so."""
    torch.manual_seed(3)
    network = build_backbone("mobilefacenet", size=(56, 48), dim=16)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network(torch.rand(16, 3, 56, 48) * 2 - 1)
    spec = PreprocessSpec(
        size=(56, 48),
        template="sphereface",
        channels="BGR",
        mean=(100.0, 110.0, 120.0),
        std=(60.0, 70.0, 80.0),
        flip="sum",
    )
    folder = tmp_path_factory.mktemp("teacher") / "model"
    save_model(folder, network, ModelCard("teacher", "mobilefacenet", 16, spec))
    return folder


def rows(count, dim, seed):
    return torch.randn(count, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_relational_distance_is_the_papers():
    s, t = rows(6, 3, 0), rows(6, 5, 1)

    def psi(x):  # equation 5: over the mean distance of all pairs
        d = {(i, j): torch.linalg.vector_norm(x[i] - x[j]) for i in range(6) for j in range(6) if i != j}
        mean = sum(d.values()) / len(d)
        return [value / mean for value in d.values()]

    terms = [huber_loss(a, b) for a, b in zip(psi(s), psi(t), strict=True)]
    torch.testing.assert_close(relational_distance(s, t), sum(terms) / len(terms))


def test_relational_angle_is_the_papers():
    s, t = rows(5, 3, 0), rows(5, 4, 1)

    def cosine(x, i, j, k):  # equation 7
        a, b = x[i] - x[j], x[k] - x[j]
        return (a / torch.linalg.vector_norm(a)) @ (b / torch.linalg.vector_norm(b))

    terms = [huber_loss(cosine(s, *ijk), cosine(t, *ijk)) for ijk in permutations(range(5), 3)]
    torch.testing.assert_close(relational_angle(s, t), sum(terms) / len(terms))
    halves = [relational_angle(s[part], t[part]) for part in (slice(0, 3), slice(3, 5))]
    torch.testing.assert_close(relational_angle(s, t, group=3), halves[0])  # two pictures have no angle
    assert halves[1] == 0


def test_relations_that_agree_up_to_scale_and_turn_cost_nothing():
    s = rows(7, 4, 0)
    turn, _ = torch.linalg.qr(rows(4, 4, 1))
    t = 3.0 * s @ turn
    assert relational_distance(s, t) < 1e-20
    assert relational_angle(s, t) < 1e-20


def test_equal_pictures_in_a_batch_have_finite_gradients():
    s = rows(4, 3, 0)
    s[1] = s[0]
    s.requires_grad_()
    (relational_distance(s, rows(4, 5, 1)) + relational_angle(s, rows(4, 5, 1))).backward()
    assert torch.isfinite(s.grad).all()


def test_the_teacher_gets_the_pictures_its_card_asks_for(blob_folder, teacher):
    source = open_source(blob_folder / "images")
    images = np.stack([source.image(i) for i in range(4)])
    opened = open_teacher(DistillRecipe(teacher=str(teacher)), (112, 112), torch.device("cpu"))
    network, card = load_model(teacher)
    crops = fit_crops(images, card.preprocess)
    x = torch.from_numpy(crops[..., ::-1].copy()).permute(0, 3, 1, 2).float()
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (card.preprocess.mean, card.preprocess.std))
    with torch.no_grad():
        raw = network((x - mean) / std) + network(((x - mean) / std).flip(3))
    expected = raw / raw.norm(dim=1, keepdim=True)
    loss = Distillation(DistillRecipe(teacher="x", weight=2.0), opened, dim=16)
    embeddings = rows(4, 16, 5).float()
    cosine = torch.nn.functional.cosine_similarity(embeddings, expected)
    assert loss.projection is None
    torch.testing.assert_close(loss(embeddings, torch.from_numpy(crops)), 2.0 * (1 - cosine).mean())
    torch.testing.assert_close(loss.last["distill_cosine"], cosine.mean())


def test_an_untouched_batch_reaches_the_teacher_as_its_own_crops(blob_folder, teacher):
    from visavis.data.augment.augmentation import Augmentation
    from visavis.train.build import build_sampler
    from visavis.train.dataset import open_dataset
    from visavis.train.loader import Loader

    recipe = student(blob_folder, distill={"teacher": str(teacher)}, augment={"flip": 0.0, "shift": 0.0})
    images, _ = open_dataset(recipe.data, recipe.preprocess.spec())
    sampler = build_sampler(recipe, images.labels)
    spec = load_model(teacher)[1].preprocess
    loader = Loader(
        images, sampler, Augmentation(flip=0.0), recipe.preprocess.spec(), seed=0, workers=0, teacher_spec=spec
    )
    batch = loader.batch(0)
    assert batch.pixels.shape == (8, 32, 32, 3)
    expected = fit_crops(images.take(sampler.batch(0)), spec).astype(int)
    assert batch.teacher.shape == (8, 56, 48, 3)
    assert np.abs(batch.teacher.numpy().astype(int) - expected).mean() < 1.0  # one resampling against another


def test_the_same_changes_reach_student_and_teacher():
    from visavis.data.augment.augmentation import Augmentation

    images = np.random.default_rng(0).integers(0, 256, (6, 112, 112, 3), np.uint8)
    augmentation = Augmentation(flip=0.5, rotate=20, brightness=0.5)
    small, large = (augmentation(images, np.random.default_rng(1), size=(s, s)) for s in (28, 112))
    import cv2

    shrunk = np.stack([cv2.resize(p, (28, 28), interpolation=cv2.INTER_AREA) for p in large])
    likeness = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(small, shrunk, strict=True)]
    strangers = np.corrcoef(small[0].ravel(), shrunk[1].ravel())[0, 1]
    assert min(likeness) > strangers + 0.3


@pytest.mark.parametrize("kind", [{"weight": 1.0}, {"weight": 0.0, "relational": 1.0}])
def test_a_distilled_student_learns_to_embed_as_the_teacher_does(blob_folder, teacher, tmp_path, kind):
    recipe = student(blob_folder, steps=60, distill={"teacher": str(teacher), **kind})
    run = train(recipe, tmp_path / "run")
    key = "distill_cosine" if kind["weight"] else "distill_relational"
    values = [line[key] for line in read_metrics(run.folder) if key in line]
    if kind["weight"]:
        assert np.mean(values[-5:]) > values[0] + 0.3
    else:
        assert np.mean(values[-5:]) < 0.75 * values[0]
    # What the student thinks of which pictures are alike follows the teacher, on pictures as they are.
    source = open_source(blob_folder / "images")
    crops = np.stack([source.image(i) for i in range(0, 48, 3)])
    network, card = load_model(run.model)
    assert card.embedding_dim == 12
    upper = np.triu_indices(len(crops), 1)
    views = [TorchEmbedder(n, c.preprocess).embed(crops) for n, c in (load_model(teacher), (network, card))]
    taught, learned = (np.asarray(v @ v.T)[upper] for v in views)
    torch.manual_seed(0)
    fresh = TorchEmbedder(build_backbone("small", size=(32, 32), dim=12, width=8), card.preprocess).embed(crops)
    untaught = np.asarray(fresh @ fresh.T)[upper]
    assert np.corrcoef(taught, learned)[0, 1] > np.corrcoef(taught, untaught)[0, 1] + 0.2


class StopAfter(Observer):
    def __init__(self, step):
        self.step = step

    def stepped(self, step):
        if step == self.step:
            signal.raise_signal(signal.SIGINT)


def test_resuming_a_distillation_ends_in_the_same_bits(blob_folder, teacher, tmp_path):
    recipe = student(blob_folder, steps=5, distill={"teacher": str(teacher), "relational": 1.0})
    train(recipe, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "halves", observer=StopAfter(2))
    assert load_checkpoint(tmp_path / "halves")["step"] < 5
    train(resume_recipe(tmp_path / "halves"), tmp_path / "halves", resume=True)
    for name in ("best", "last"):
        models = [(tmp_path / run / name / "weights.safetensors").read_bytes() for run in ("whole", "halves")]
        assert models[0] == models[1]
    a, b = (load_checkpoint(tmp_path / run) for run in ("whole", "halves"))
    assert str(a["objective"]) == str(b["objective"])  # the projection and its momentum


def test_a_teacher_that_cannot_be_fed_or_found_is_refused(blob_folder, teacher, tmp_path):
    with pytest.raises(DataError, match="56×48"):
        open_teacher(DistillRecipe(teacher=str(teacher)), (100, 90), torch.device("cpu"))
    with pytest.raises(ModelFormatError, match="expected a model folder"):
        open_teacher(DistillRecipe(teacher=str(tmp_path / "none")), (112, 112), torch.device("cpu"))
    with pytest.raises(RecipeError, match="one of head, triplet and distill"):
        student(blob_folder)
    with pytest.raises(RecipeError, match="one of them positive"):
        student(blob_folder, distill={"teacher": str(teacher), "weight": 0.0})
    with pytest.raises(RecipeError, match=r"triplet\.pool online"):
        student(blob_folder, distill={"teacher": str(teacher)}, triplet={"weight": 1.0, "pool": "offline"})
