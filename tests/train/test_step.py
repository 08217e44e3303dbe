"""Steps of the loop worked out in NumPy, float64, and compared with `train`: what decides a step is all in here."""

import math

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from visavis.distributed.launch import ALONE
from visavis.train.build import build_training
from visavis.train.checkpoint import load_checkpoint
from visavis.train.loop import train
from visavis.train.recipe import parse_recipe
from visavis.train.run_logger import Observer, read_metrics

STEPS, WARMUP, BATCH, PARTS = 5, 2, 16, 2
LR, LR_PER, HEAD_SCALE, DECAY, CLIP, EMA, START, FINAL = 0.4, 32, 0.5, 0.1, 1.4, 0.25, 0.1, 0.2


def recipe(folder, **optimizer):
    return parse_recipe(
        {
            "seed": 5,
            "data": {"source": str(folder), "workers": 0},
            "preprocess": {"size": [8, 8]},
            "augment": {"flip": 0.5},
            "backbone": {"name": "linear_network:Linear", "dim": 6},
            "head": {"name": "softmax"},
            "optimizer": {
                "lr": LR, "lr_reference_batch": LR_PER, "weight_decay": DECAY, "decay_norms_and_biases": False,
                "head_lr_scale": HEAD_SCALE, "clip_norm": CLIP, **optimizer,
            },
            "schedule": {"name": "cosine", "warmup_steps": WARMUP, "warmup_start": START, "args": {"final": FINAL}},
            "loop": {
                "batch_size": BATCH, "device_batch": BATCH // PARTS, "steps": STEPS, "log_every": 1, "ema": EMA,
                "device": "cpu",
            },
        }
    )  # fmt: skip


def factor(step):
    if step < WARMUP:
        return START + (1 - START) * (step + 1) / WARMUP
    return FINAL + (1 - FINAL) * (1 + math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP))) / 2


def gradients(p, pixels, labels):
    """Mean cross-entropy of W₂ e + b₂ with e = g ∘ (W₁ x) + b₁, and its gradient by each parameter."""
    x = ((pixels.astype(np.float64) - 127.5) / 127.5).transpose(0, 3, 1, 2).reshape(len(pixels), -1)
    hidden = x @ p["weight"].T
    embeddings = p["gain"] * hidden + p["bias"]
    logits = embeddings @ p["head.weight"].T + p["head.bias"]
    shares = np.exp(logits - logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    rows = np.arange(len(labels))
    loss = -np.log(shares[rows, labels]).mean()
    d = shares.copy()
    d[rows, labels] -= 1
    d /= len(labels)
    de = d @ p["head.weight"]
    return loss, {
        "head.weight": d.T @ embeddings,
        "head.bias": d.sum(0),
        "gain": (de * hidden).sum(0),
        "bias": de.sum(0),
        "weight": (de * p["gain"]).T @ x,
    }


def sgd(p, g, state, rate, decay, *, nesterov):
    g = g + decay * p
    state["v"] = 0.9 * state["v"] + g if "v" in state else g
    return p - rate * (g + 0.9 * state["v"] if nesterov else state["v"])


def adamw(p, g, state, rate, decay, *, betas=(0.8, 0.9), eps=1e-3):
    t = state["t"] = state.get("t", 0) + 1
    p = p * (1 - rate * decay)
    for key, beta, value in (("m", betas[0], g), ("v", betas[1], g * g)):
        state[key] = beta * state.get(key, 0.0) + (1 - beta) * value
    m, v = state["m"] / (1 - betas[0] ** t), state["v"] / (1 - betas[1] ** t)
    return p - rate * m / (np.sqrt(v) + eps)


def by_hand(training, start, rule):
    """Parameters, their average, and per step (loss, norm before clipping, rate)."""
    p = {name: value.astype(np.float64) for name, value in start.items()}
    average = {name: p[name].copy() for name in ("weight", "gain", "bias")}
    states, lines = {name: {} for name in p}, []
    for step in range(STEPS):
        loss, total = 0.0, {name: np.zeros_like(value) for name, value in p.items()}
        for part in range(PARTS):
            batch = training.loader.batch(step * PARTS + part)
            found, gradient = gradients(p, batch.pixels.numpy(), batch.labels.numpy())
            loss += found / PARTS
            for name in total:
                total[name] += gradient[name] / PARTS
        norm = math.sqrt(sum((g**2).sum() for g in total.values()))
        rate = LR * BATCH / LR_PER * factor(step)
        for name, value in p.items():
            own = rate * (HEAD_SCALE if name.startswith("head") else 1)
            clipped = total[name] * min(1.0, CLIP / norm)
            p[name] = rule(value, clipped, states[name], own, DECAY if value.ndim > 1 else 0.0)
        d = min(EMA, (1 + step + 1) / (10 + step + 1))
        for name in average:
            average[name] = d * average[name] + (1 - d) * p[name]
        lines.append((loss, norm, rate))
    return p, average, lines


RULES = {
    "sgd": ({"name": "sgd", "momentum": 0.9}, lambda *a: sgd(*a, nesterov=False)),
    "nesterov": ({"name": "sgd", "momentum": 0.9, "nesterov": True}, lambda *a: sgd(*a, nesterov=True)),
    "adamw": ({"name": "adamw", "betas": [0.8, 0.9], "eps": 1e-3}, adamw),
}


@pytest.mark.parametrize("name", RULES)
def test_train_takes_the_steps_worked_out_by_hand(blob_folder, tmp_path, name):
    optimizer, rule = RULES[name]
    made = recipe(blob_folder, **optimizer)
    torch.manual_seed(made.seed)
    training, state = build_training(made, ALONE, Observer())
    start = {**state.network.state_dict(), **{n: v for n, v in state.objective.state_dict().items() if v.ndim}}
    expected, average, lines = by_hand(training, {n: v.numpy().copy() for n, v in start.items()}, rule)
    assert min(norm for _, norm, _ in lines) < CLIP < max(norm for _, norm, _ in lines)  # clipped, and not

    train(made, tmp_path / "run")
    found = load_checkpoint(tmp_path / "run")
    for parameter, value in expected.items():
        part = found["objective" if parameter.startswith("head") else "network"]
        np.testing.assert_allclose(part[parameter].numpy(), value, rtol=2e-5, atol=2e-6, err_msg=parameter)
    saved = load_file(tmp_path / "run" / "last" / "weights.safetensors")
    for parameter, value in average.items():
        np.testing.assert_allclose(saved[parameter], value, rtol=2e-5, atol=2e-6, err_msg=parameter)
        assert np.abs(value - expected[parameter]).max() > 1e-3  # the average is not the weights
    for line, (loss, norm, rate) in zip(read_metrics(tmp_path / "run"), lines, strict=True):
        assert (line["loss"], line["gradient_norm"]) == pytest.approx((loss, norm), rel=1e-4)
        assert line["lr"] == pytest.approx(rate, rel=1e-12)
