"""Every entry of HEADS against its paper's formula written plainly, and the properties all of them share."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize, one_hot, softplus

from visavis.errors import RecipeError
from visavis.losses.heads import HEADS, build_head
from visavis.losses.partial_fc.margin_softmax import MarginSoftmax
from visavis.losses.partial_fc.sampling import step_generator

B, D, C = 16, 8, 37


# ── the formulas: every logit written down, angles by arccos, the margin by a mask ──────────────────────────────────
def arc(theta, m):
    return torch.where(theta + m <= math.pi, (theta + m).cos(), theta.cos() - m * math.sin(m))


def with_target(cosine, labels, psi, others=None):
    mask = one_hot(labels, cosine.shape[1]).bool()
    return torch.where(mask, psi, cosine if others is None else others)


def f_softmax(p):
    return cross_entropy(p.x @ p.w.T + p.bias, p.y)


def f_normface(p):
    scale = p.head["log_scale"].exp() if "log_scale" in p.head else 30.0
    return cross_entropy(scale * p.cos, p.y)


def f_asoftmax(p, smoothing=0.0):
    theta = p.cos.arccos()
    k = (4 * theta / math.pi).floor()
    phi = (-1) ** k * (4 * theta).cos() - 2 * k
    true = one_hot(p.y, C).double()
    mask = true * (1 - smoothing) + (1 - true) * (smoothing / (C - 1))
    lam = max(5.0, 1500 / (1 + 0.1 * 1))  # the first step
    z = p.norm[:, None] * (p.cos + mask * (phi - p.cos) / (1 + lam))
    return -(mask * z.log_softmax(1)).sum(1).mean()


def f_sphereface_r1(p, detach):
    psi = (1.5 * p.theta).clamp_max(math.pi).cos()
    if detach:
        psi = p.cos + (psi - p.cos).detach()
    return cross_entropy(30 * with_target(p.cos, p.y, psi), p.y)


def f_sphereface_r2_soft(p):
    z = p.norm[:, None] * with_target(p.cos, p.y, p.cos, (p.theta / 1.5).cos())
    return cross_entropy(z, p.y) + (0.01 * (p.norm - 30).abs()).mean()


def f_sphereface2(p, kind):
    def g(z):
        return 2 * ((z + 1) / 2) ** 3 - 1

    r, share, m, b = 40.0, 0.7, 0.4, p.head["bias"]
    if kind == "C":
        psi, eta = g(p.cos) - m, g(p.cos) + m
    elif kind == "A":
        psi, eta = g((p.theta + m).clamp_max(math.pi).cos()), g(p.cos)
    else:
        psi, eta = g((1.4 * p.theta).clamp_max(math.pi).cos()), g(p.cos)
    mask = one_hot(p.y, C).bool()
    rows = torch.where(
        mask, share / r * softplus(-(r * psi + b), threshold=99), (1 - share) / r * softplus(r * eta + b, threshold=99)
    )
    return rows.sum(1).mean()


def f_cosface(p):
    return cross_entropy(64 * with_target(p.cos, p.y, p.cos - 0.35), p.y)


def f_arcface(p):
    return cross_entropy(64 * with_target(p.cos, p.y, arc(p.theta, 0.5)), p.y)


def f_arcface_detached(p):
    shift = (with_target(p.cos, p.y, arc(p.theta, 0.5)) - p.cos).detach()
    return cross_entropy(64 * (p.cos + shift), p.y)


def f_combined(p):
    m1, m2, m3 = 1.2, 0.3, 0.2
    bend = (math.pi - m2) / m1
    beyond = p.cos - math.cos(bend) - (m2 * math.sin(m2) + math.cos(m2))
    psi = torch.where(p.theta <= bend, (m1 * p.theta + m2).cos(), beyond) - m3
    return cross_entropy(64 * with_target(p.cos, p.y, psi), p.y)


def f_adacos(p):
    with torch.no_grad():
        s = p.state["current"]
        assert s.item() == pytest.approx(math.sqrt(2) * math.log(C - 1), rel=1e-6)
        mass = ((s * p.cos).exp() * (1 - one_hot(p.y, C))).sum(1).mean()
        middle = p.cos.gather(1, p.y[:, None]).arccos().sort(0).values[(len(p.y) - 1) // 2]
        s = mass.log() / middle.clamp_max(math.pi / 4).cos()
    return cross_entropy(s * p.cos, p.y)


def f_curricularface(p):
    t = 0.01 * p.cos.gather(1, p.y[:, None]).mean().detach()
    psi = arc(p.theta, 0.5)
    bound = psi.gather(1, p.y[:, None]).detach()
    return cross_entropy(64 * with_target(p.cos, p.y, psi, torch.where(p.cos > bound, p.cos * (t + p.cos), p.cos)), p.y)


def f_mv(p, kind, adaptive):
    psi = arc(p.theta, 0.5) if kind == "angle" else p.cos - 0.35
    bound = psi.gather(1, p.y[:, None]).detach()
    factor = (0.2 * (p.cos + 1) if adaptive else torch.full_like(p.cos, 0.2)) * (p.cos > bound)
    z = 32 * with_target(p.cos, p.y, psi)  # the paper's form: h(t, θ_k, I_k) multiplies the exponentials
    h = torch.where(one_hot(p.y, C).bool(), 0.0, 32 * factor)
    return cross_entropy(z + h, p.y)


def f_magface(p):
    a = p.norm.clamp(10, 110)
    m = (0.45 + (0.8 - 0.45) / 100 * (a - 10))[:, None]
    psi = torch.where(p.theta + m <= math.pi, (p.theta + m).cos(), p.cos - m * m.sin())
    return cross_entropy(64 * with_target(p.cos, p.y, psi), p.y) + 35 * (a / 110**2 + 1 / a).mean()


def f_detached(p, psi, others=None):
    """CVLface and arcface_torch: the margin is added without gradient."""
    scale = 32 if others is not None else 64
    return cross_entropy(scale * with_target(p.cos, p.y, p.cos + (psi - p.cos).detach(), others), p.y)


def f_mv_raised(p):
    bound = (p.cos - 0.35).gather(1, p.y[:, None]).detach()
    return torch.where(p.cos > bound, 1.2 * p.cos + 0.2, p.cos)


def f_magface_detached(p):
    a = p.norm.clamp(10, 110)
    m = (0.45 + (0.8 - 0.45) / 100 * (a - 10))[:, None]
    return f_detached(p, arc_of(p, m)) + 35 * (a / 110**2 + 1 / a).mean()


def arc_of(p, m):
    return torch.where(p.theta + m <= math.pi, (p.theta + m).cos(), p.cos - m * m.sin())


def f_adaface(p):
    return cross_entropy(64 * with_target(p.cos, p.y, adaface_psi(p)), p.y)


def adaface_psi(p):
    norm = p.norm.detach().clamp(0.001, 100)
    mean, deviation = 0.99 * 20 + 0.01 * norm.mean(), 0.99 * 100 + 0.01 * norm.std()
    z = ((norm - mean) / (deviation + 1e-3) * 0.333).clamp(-1, 1)[:, None]
    return (p.theta - 0.4 * z).clamp(0, math.pi).cos() - (0.4 + 0.4 * z)


def f_elastic(p, kind, plus):
    return cross_entropy(64 * with_target(p.cos, p.y, elastic_psi(p, kind, plus)), p.y)


def elastic_psi(p, kind, plus):
    m = (0.5 if kind == "arc" else 0.35) + 0.05 * torch.randn(
        B, dtype=torch.double, generator=step_generator(0, "margins", 1)
    )
    if plus:
        m = m.sort(descending=True).values[p.cos.gather(1, p.y[:, None])[:, 0].argsort().argsort()]
    m = m[:, None]
    return arc_of(p, m) if kind == "arc" else p.cos - m


def f_uniface(p):
    mask = one_hot(p.y, C).bool()
    positive = softplus(-(64 * (p.cos - 0.4) - p.head["bias"]), threshold=99)
    return torch.where(mask, positive, 0.5 * softplus(64 * p.cos - p.head["bias"], threshold=99)).sum(1).mean()


CASES = {
    "softmax": ("softmax", {}, f_softmax),
    "normface": ("normface", {}, f_normface),
    "normface, learned scale": ("normface", {"scale": 20.0, "learn_scale": True}, f_normface),
    "asoftmax": ("asoftmax", {}, f_asoftmax),
    "asoftmax, S7": ("asoftmax", {"legacy_smoothing": 0.15}, lambda p: f_asoftmax(p, 0.15)),
    "sphereface_r v1": ("sphereface_r", {"detach_margin": False}, lambda p: f_sphereface_r1(p, detach=False)),
    "sphereface_r v1, detached": ("sphereface_r", {}, lambda p: f_sphereface_r1(p, detach=True)),
    "sphereface_r v2": (
        "sphereface_r", {"version": "v2", "features": "soft", "detach_margin": False}, f_sphereface_r2_soft,
    ),
    "sphereface2-C": ("sphereface2", {}, lambda p: f_sphereface2(p, "C")),
    "sphereface2-A": ("sphereface2", {"kind": "A"}, lambda p: f_sphereface2(p, "A")),
    "sphereface2-M": ("sphereface2", {"kind": "M", "margin": 1.4}, lambda p: f_sphereface2(p, "M")),
    "cosface": ("cosface", {}, f_cosface),
    "arcface": ("arcface", {}, f_arcface),
    "arcface, detached": ("arcface", {"detach_margin": True}, f_arcface_detached),
    "combined": ("combined", {"m1": 1.2}, f_combined),
    "combined as arcface": ("combined", {"m2": 0.5, "m3": 0.0}, f_arcface),
    "combined as cosface": ("combined", {"m2": 0.0, "m3": 0.35}, f_cosface),
    "adacos": ("adacos", {}, f_adacos),
    "curricularface": ("curricularface", {}, f_curricularface),
    "mv_softmax": ("mv_softmax", {}, lambda p: f_mv(p, "cosine", adaptive=True)),
    "mv_softmax, angle, fixed": (
        "mv_softmax", {"kind": "angle", "margin": 0.5, "adaptive": False}, lambda p: f_mv(p, "angle", adaptive=False),
    ),
    "magface": ("magface", {}, f_magface),
    "adaface": ("adaface", {}, f_adaface),
    "mv_softmax, detached": (
        "mv_softmax", {"detach_margin": True}, lambda p: f_detached(p, p.cos - 0.35, f_mv_raised(p)),
    ),
    "magface, detached": ("magface", {"detach_margin": True}, f_magface_detached),
    "adaface, detached": ("adaface", {"detach_margin": True}, lambda p: f_detached(p, adaface_psi(p))),
    "elastic_arcface, detached": (
        "elastic_arcface", {"detach_margin": True}, lambda p: f_detached(p, elastic_psi(p, "arc", plus=False)),
    ),
    "elastic_cosface, detached": (
        "elastic_cosface", {"detach_margin": True}, lambda p: f_detached(p, elastic_psi(p, "cos", plus=False)),
    ),
    "elastic_arcface": ("elastic_arcface", {}, lambda p: f_elastic(p, "arc", plus=False)),
    "elastic_arcface+": ("elastic_arcface", {"plus": True}, lambda p: f_elastic(p, "arc", plus=True)),
    "elastic_cosface": ("elastic_cosface", {}, lambda p: f_elastic(p, "cos", plus=False)),
    "elastic_cosface+": ("elastic_cosface", {"plus": True}, lambda p: f_elastic(p, "cos", plus=True)),
    "uniface": ("uniface", {"balance": 0.5}, f_uniface),
    "subcenter_arcface": ("subcenter_arcface", {"sub_centers": 3}, f_arcface),
}  # fmt: skip


class Plain:
    """Leaves and everything of size B × C, as a textbook would compute it."""

    def __init__(self, module, x, labels):
        self.x, self.y = x.detach().clone().requires_grad_(), labels
        self.w = module.weight.detach().clone().requires_grad_()
        self.bias = None if module.bias is None else module.bias.detach().clone().requires_grad_()
        self.head = {k: v.detach().clone().requires_grad_() for k, v in module.head.named_parameters()}
        self.state = {k: v.clone() for k, v in module.head.named_buffers()}
        self.norm = self.x.norm(dim=1)
        self.cos = normalize(self.x) @ normalize(self.w).T
        if module.sub_centers > 1:
            self.cos = self.cos.unflatten(1, (-1, module.sub_centers)).max(2).values
        self.theta = self.cos.arccos()

    def leaves(self):
        return [self.x, self.w, *([] if self.bias is None else [self.bias]), *self.head.values()]


def batch(dtype=torch.double, size=10.0):
    generator = torch.Generator().manual_seed(7)
    x = (size * torch.randn(B, D, dtype=torch.double, generator=generator)).to(dtype)
    return x.requires_grad_(), torch.randint(0, C, (B,), generator=generator)


def margin_softmax(name, args, **kw):
    torch.manual_seed(1)
    module = MarginSoftmax(build_head(name, **args), num_classes=C, dim=D, seed=3, **kw)
    if module.bias is not None:
        torch.nn.init.normal_(module.bias)
    return module


def parameters(module, x):
    named = dict(module.named_parameters())
    order = ["weight", *(["bias"] if module.bias is not None else []), *[n for n in named if n.startswith("head.")]]
    return [x, *[named[n] for n in order]]


@pytest.mark.parametrize(("kind", "margin"), [("cosine", 0.35), ("angle", 0.5)])
def test_mv_softmax_with_the_published_codes_easy_margin(kind, margin):
    """ψ without its margin while cos θ_y ≤ m (or ≤ 0); who counts as misclassified is told by ψ with it."""
    x, labels = batch()
    module = margin_softmax("mv_softmax", {"kind": kind, "margin": margin, "easy_margin": True}).double()
    p = Plain(module, x, labels)
    true = p.cos.gather(1, labels[:, None])
    with_margin = arc(p.theta, margin).gather(1, labels[:, None]) if kind == "angle" else true - margin
    hard = p.cos > with_margin.detach()
    floor = 0.0 if kind == "angle" else margin
    assert 0 < (true > floor).sum() < B
    psi = torch.where(true > floor, with_margin, true)
    z = torch.where(one_hot(labels, C).bool(), psi, torch.where(hard, 1.2 * p.cos + 0.2, p.cos))
    wanted = cross_entropy(32 * z, labels)
    wanted.backward()
    loss = module(x, labels)
    loss.backward()
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-12)
    torch.testing.assert_close(x.grad, p.x.grad, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("std", "length"), [(None, 1.0), (0.01, 0.226)])
def test_centers_start_at_the_length_asked_for(std, length):
    weight = MarginSoftmax(build_head("arcface"), num_classes=300, dim=512, seed=1, init_std=std).weight
    assert weight.norm(dim=1).mean().item() == pytest.approx(length, rel=0.01)
    same = MarginSoftmax(build_head("arcface"), num_classes=300, dim=512, seed=1).weight
    torch.testing.assert_close(normalize(weight), normalize(same))  # the draw is the same, only its size is another
    with pytest.raises(RecipeError, match="init_std"):
        MarginSoftmax(build_head("arcface"), num_classes=3, dim=4, init_std=0.0)


def test_every_head_has_a_formula_here():
    assert {name for name, _, _ in CASES.values()} == set(HEADS)


@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradients_equal_the_plain_formula(case):
    name, args, formula = CASES[case]
    x, labels = batch()
    module = margin_softmax(name, args, chunk=10, keep=0).double()
    plain = Plain(module, x, labels)
    wanted = formula(plain)
    wanted.backward()
    loss = module(x, labels)
    loss.backward()
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-12)
    for ours, theirs in zip(parameters(module, x), plain.leaves(), strict=True):
        size = max(1.0, theirs.grad.abs().max().item())
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=1e-9 * size)


@pytest.mark.parametrize("case", CASES)
def test_chunks_change_nothing(case):
    name, args, _ = CASES[case]
    found = []
    for chunk, keep in ((1, 0), (7, 1 << 20), (C, 0), (1000, 1 << 20)):
        x, labels = batch()
        module = margin_softmax(name, args, chunk=chunk, keep=keep).double()
        loss = module(x, labels)
        loss.backward()
        found.append((loss.detach(), x.grad, module.weight.grad))
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", CASES)
def test_finite_at_the_ends_of_the_cosine(case, dtype):
    name, args, _ = CASES[case]
    module = margin_softmax(name, args).to(dtype)
    with torch.no_grad():
        module.weight.copy_(torch.eye(D, dtype=dtype).repeat(C * module.sub_centers // D + 1, 1)[: len(module.weight)])
    axis = torch.eye(D, dtype=dtype)[module.weight.argmax(1)[:: module.sub_centers]]
    labels = torch.arange(6)
    away = axis[(labels + 1) % 8]
    for size in (1e-3, 20.0, 1e3):
        x = torch.cat([size * axis[labels], -size * axis[labels], size * away, torch.zeros_like(away)])
        x = x.detach().requires_grad_()
        loss = module(x, labels.repeat(4))
        gradients = torch.autograd.grad(loss, parameters(module, x))
        assert torch.isfinite(loss), size
        assert all(torch.isfinite(g).all() for g in gradients), size


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("case", CASES)
def test_the_target_never_rises_with_the_angle(case, dtype):
    name, args, _ = CASES[case]
    head = build_head(name, **args).to(dtype).eval()  # in training, elastic margins differ between samples
    head.setup(C, 1.0)
    theta = torch.linspace(0, math.pi, 20_001, dtype=torch.double)
    for norm in (5.0, 20.0, 60.0, 200.0):
        logit = head.target_logit(theta.cos().to(dtype), torch.full_like(theta, norm, dtype=dtype)).logit
        assert logit.diff().max() <= 8 * torch.finfo(dtype).eps


NEUTRAL = {
    "normface": {},
    "asoftmax": {"margin": 1},
    "sphereface_r": {"margin": 1.0},
    "cosface": {"margin": 0.0},
    "arcface": {"margin": 0.0},
    "combined": {"m2": 0.0, "m3": 0.0},
    "adacos": {"fixed": True},
    "mv_softmax": {"margin": 0.0, "weight": 1.0},
    "magface": {"low_margin": 0.0, "high_margin": 0.0, "regularizer": 0.0},
    "adaface": {"margin": 0.0},
    "elastic_arcface": {"margin": 0.0, "deviation": 0.0},
    "elastic_cosface": {"margin": 0.0, "deviation": 0.0},
    "subcenter_arcface": {"margin": 0.0, "sub_centers": 1},
}
# CurricularFace modulates hard negatives whatever its margin; SphereFace2 and UniFace are no softmax.


def test_who_has_no_neutral_margin_is_known():
    assert set(HEADS) - set(NEUTRAL) == {"softmax", "curricularface", "sphereface2", "uniface"}


@pytest.mark.parametrize("name", NEUTRAL)
def test_without_margin_it_is_the_softmax_of_scaled_cosines(name):
    x, labels = batch()
    module = margin_softmax(name, NEUTRAL[name]).double()
    loss = module(x, labels)
    logits = module.head.scales(x.norm(dim=1))[:, None] * (normalize(x) @ normalize(module.weight).T)
    assert loss.item() == pytest.approx(cross_entropy(logits, labels).item(), rel=1e-12)
    torch.testing.assert_close(module.logits(x.detach()), logits.detach())


@pytest.mark.parametrize("case", CASES)
def test_permuting_classes_permutes_logits_and_keeps_the_loss(case):
    name, args, _ = CASES[case]
    x, labels = batch()
    one, two = (margin_softmax(name, args, chunk=8).double() for _ in range(2))
    order = torch.randperm(C, generator=torch.Generator().manual_seed(2))
    rows = (order[:, None] * one.sub_centers + torch.arange(one.sub_centers)).flatten()
    with torch.no_grad():
        two.weight.copy_(one.weight[rows])
        if one.bias is not None:
            two.bias.copy_(one.bias[rows])
    assert one(x, labels).item() == pytest.approx(two(x, order.argsort()[labels]).item(), rel=1e-12)
    torch.testing.assert_close(one.logits(x.detach())[:, order], two.logits(x.detach()))


@pytest.mark.parametrize("case", CASES)
def test_state_survives_a_checkpoint(case, tmp_path):
    name, args, _ = CASES[case]
    x, labels = batch()
    going = margin_softmax(name, args, sample_rate=0.5).double()
    for _ in range(3):
        going(x, labels)
    torch.save(going.state_dict(), tmp_path / "state.pt")
    resumed = margin_softmax(name, args, sample_rate=0.5).double()
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert going(x, labels).item() == resumed(x, labels).item()


@pytest.mark.parametrize("case", CASES)
def test_a_batch_that_is_not_finite_leaves_no_trace(case):
    name, args, _ = CASES[case]
    x, labels = batch()
    module = margin_softmax(name, args, center_loss=0.1).double()
    module(x, labels)
    before = {k: v.clone() for k, v in module.state_dict().items() if k != "steps"}
    with torch.no_grad():
        x[3] = torch.nan
    assert not torch.isfinite(module(x, labels))
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items() if k != "steps")


@pytest.mark.parametrize(
    ("name", "args", "said"),
    [
        ("arcface", {"margin": 28.6}, r"\[0, π/2\) radians, got 28.6 \(28.6 degrees is 0.499 radians\)"),
        ("cosface", {"margin": -0.1}, r"CosFace margin must lie in \[0, 2\)"),
        ("cosface", {"scale": 0.0}, r"scale must lie in \(0,"),
        ("cosface", {"margin": "0.3"}, "got '0.3'"),
        ("asoftmax", {"margin": 2.5}, r"whole number in \[1, 6\]"),
        ("sphereface_r", {"version": "v3"}, "'v1' or 'v2'"),
        ("sphereface2", {"kind": "B"}, "'C', 'A' or 'M'"),
        ("sphereface2", {"balance": 1.0}, "balance"),
        ("combined", {"m1": 0.5}, "m1"),
        ("mv_softmax", {"kind": "arc"}, "'cosine' or 'angle'"),
        ("magface", {"low_norm": 120.0}, "low_norm < high_norm"),
        ("adaface", {"margin": 1.0}, "AdaFace margin"),
        ("elastic_arcface", {"margin": 2.0}, "ElasticArcFace margin"),
        ("subcenter_arcface", {"sub_centers": 0}, "sub_centers"),
        ("curricularface", {"momentum": 1.0}, "momentum"),
    ],
)
def test_parameters_out_of_range_are_refused(name, args, said):
    with pytest.raises(RecipeError, match=said):
        build_head(name, **args)


def test_adacos_and_label_smoothing_refuse_what_has_no_meaning():
    with pytest.raises(RecipeError, match="at least 3 classes"):
        MarginSoftmax(build_head("adacos"), num_classes=2, dim=D)
    with pytest.raises(RecipeError, match="label_smoothing"):
        MarginSoftmax(build_head("uniface"), num_classes=C, dim=D, label_smoothing=0.1)
