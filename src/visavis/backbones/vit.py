"""Vision transformers for faces, under arcface_torch's state-dict names."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from visavis.backbones.layers import check_size
from visavis.errors import RecipeError

# width, depth and heads; arcface_torch's sizes, not those of Dosovitskiy et al.
SIZES = {"tiny": (256, 12, 8), "small": (512, 12, 8), "base": (512, 24, 8), "large": (768, 24, 8)}


class Attention(nn.Module):
    """Multi-head self-attention: softmax(Q·Kᵀ/√d)·V, projected; Vaswani et al., arXiv:1706.03762v7, equation 1."""

    def __init__(self, width: int, heads: int, tokens: int) -> None:
        super().__init__()
        self.heads = heads
        self.tokens = tokens
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (N, T, width) -> (N, T, width)."""
        # Masking leaves out tokens while training; otherwise their number is fixed, which keeps exported graphs plain.
        tokens, width = x.shape[1] if self.training else self.tokens, self.proj.in_features
        qkv = self.qkv(x).reshape(-1, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        if self.training:
            y = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
        else:
            y = (qkv[0] * (width // self.heads) ** -0.5 @ qkv[1].transpose(2, 3)).softmax(-1) @ qkv[2]
        return self.proj(y.transpose(1, 2).reshape(-1, tokens, width))


class Mlp(nn.Module):
    """W₂ · min(max(W₁·x + b₁, 0), 6) + b₂ with four times the width between."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (N, T, width) -> (N, T, width)."""
        return self.fc2(F.relu6(self.fc1(x)))


class TransformerBlock(nn.Module):
    """x + drop(attention(norm(x))), then x + drop(mlp(norm(x))).

    While training, `drop` zeroes a whole branch of a sample with probability `drop_path` and divides the rest by
    1 − `drop_path` (stochastic depth, arXiv:1603.09382v3, section 3).
    """

    def __init__(self, width: int, heads: int, tokens: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads, tokens)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width)
        self.drop_path = drop_path

    def _drop(self, x: Tensor) -> Tensor:
        if not self.training or self.drop_path == 0:
            return x
        keep = 1 - self.drop_path
        return x * x.new_empty(len(x), 1, 1).bernoulli_(keep).div_(keep)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (N, T, width) -> (N, T, width)."""
        x = x + self._drop(self.attn(self.norm1(x)))
        return x + self._drop(self.mlp(self.norm2(x)))


class _Patches(nn.Module):
    """The name `patch_embed.proj` of the published weights."""

    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, patch)


class VisionTransformer(nn.Module):
    """A transformer over 9 × 9 patches whose tokens all enter the feature; there is no class token.

        embedding = BN(W₂ · BN(W₁ · flatten(norm(blocks(patches(x) + positions)))))

    Dosovitskiy et al., arXiv:2010.11929v2, section 3.1, as arcface_torch builds it: no bias on queries, keys and
    values, ReLU6 for GELU, its own sizes. While training, `mask_ratio` of the tokens are left out of the blocks and
    replaced by a learned one before the feature (He et al., arXiv:2111.06377v3, section 3, without a decoder).

    Args:
        variant: tiny, small, base or large.
        size: (height, width) of the crops in pixels.
        dim: length D of the embedding.
        patch: side of a patch in pixels; what is left over at the right and bottom is not seen.
        drop_path: stochastic depth of the last block, in [0, 1); it grows linearly from 0.
        mask_ratio: share of tokens left out while training, in [0, 1).
        checkpointing: recompute each block in the backward pass instead of keeping its activations.
    """

    def __init__(
        self,
        variant: str,
        *,
        size: tuple[int, int] = (112, 112),
        dim: int = 512,
        patch: int = 9,
        drop_path: float = 0.05,
        mask_ratio: float = 0.0,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        check_size(f"vit_{variant}", size, dim)
        width, depth, heads = SIZES[variant]
        if not 1 <= patch <= min(size):
            raise RecipeError(f"vit_{variant} wants patches of 1 to {min(size)} pixels, got {patch}")
        if not (0 <= drop_path < 1 and 0 <= mask_ratio < 1):
            raise RecipeError(f"vit wants drop_path and mask_ratio in [0, 1), got {drop_path} and {mask_ratio}")
        self.dim = dim
        self.mask_ratio = mask_ratio
        self.checkpointing = checkpointing
        tokens = (size[0] // patch) * (size[1] // patch)
        self.map = (width, tokens)  # as numbers, so that an exported graph need not ask for its shape
        self.patch_embed = _Patches(width, patch)
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, width))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        rates = [drop_path * i / max(depth - 1, 1) for i in range(depth)]
        self.blocks = nn.ModuleList(TransformerBlock(width, heads, tokens, rate) for rate in rates)
        self.norm = nn.LayerNorm(width)
        self.feature = nn.Sequential(
            nn.Linear(width * tokens, width, bias=False),
            nn.BatchNorm1d(width, eps=2e-5),
            nn.Linear(width, dim, bias=False),
            nn.BatchNorm1d(dim, eps=2e-5),
        )
        self.mask_token.requires_grad_(mask_ratio > 0)  # DistributedDataParallel waits for every gradient
        nn.init.normal_(self.mask_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Normalized crops (N, 3, H, W) -> raw features (N, D)."""
        x = self.patch_embed.proj(x).reshape(-1, *self.map).transpose(1, 2) + self.pos_embed
        masked = self.training and self.mask_ratio > 0
        if masked:
            kept, order = self._sample(x)
            x = x.gather(1, kept.unsqueeze(-1).expand(-1, -1, x.shape[2]))
        else:
            order = None
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.checkpointing and self.training else block(x)  # pyright: ignore[reportAssignmentType]
        x = self.norm(x)
        if order is not None:
            filler = self.mask_token.to(x.dtype).expand(len(x), order.shape[1] - x.shape[1], -1)
            x = torch.cat([x, filler], 1).gather(1, order.unsqueeze(-1).expand(-1, -1, x.shape[2]))
        return self.feature(torch.flatten(x, 1))

    def _sample(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Indices of the tokens kept, (N, K), and where each token of the whole row then stands, (N, T)."""
        shuffled = torch.rand(x.shape[:2], device=x.device).argsort(1)
        return shuffled[:, : int(x.shape[1] * (1 - self.mask_ratio))], shuffled.argsort(1)
