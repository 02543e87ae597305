"""The U-Net of ADM in PyTorch, in the names and the order of numbers of openai/guided-diffusion.

torchcfm and the image examples of flow_matching use the same. Written from the paper and the
published names, apart from fmjax and from the official code, to make the golden files; nothing in
fmjax and none of its tests imports it. What it has beside: a number of groups, which is 32 there.
"""

import math

import torch
from torch import nn


class Residual(nn.Module):
    """`resample` is "", "up" or "down"; the condition adds, or with `scales` also multiplies."""

    def __init__(
        self, inputs: int, outputs: int, embedding: int, groups: int, scales: bool, resample=""
    ):
        super().__init__()
        self.scales, self.resample = scales, resample
        self.in_layers = nn.Sequential(
            nn.GroupNorm(groups, inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(
            nn.SiLU(), nn.Linear(embedding, 2 * outputs if scales else outputs)
        )
        self.out_layers = nn.Sequential(
            nn.GroupNorm(groups, outputs),
            nn.SiLU(),
            nn.Dropout(0.0),
            nn.Conv2d(outputs, outputs, 3, padding=1),
        )
        same = inputs == outputs
        self.skip_connection = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        norm, silu, conv = self.in_layers
        h = silu(norm(x))
        if self.resample == "up":
            h, x = (nn.functional.interpolate(y, scale_factor=2, mode="nearest") for y in (h, x))
        elif self.resample == "down":
            h, x = (nn.functional.avg_pool2d(y, 2) for y in (h, x))
        h = conv(h)
        vectors = self.emb_layers(embedding)[:, :, None, None]
        norm, *rest = self.out_layers
        if self.scales:
            scale, shift = vectors.chunk(2, dim=1)
            h = norm(h) * (1 + scale) + shift
        else:
            h = norm(h + vectors)
        return self.skip_connection(x) + nn.Sequential(*rest)(h)


class Attention(nn.Module):
    """`new_order`: channels of qkv are q, k, v of all heads; else each head's q, k and v."""

    def __init__(self, channels: int, heads: int, groups: int, new_order: bool):
        super().__init__()
        self.heads, self.new_order = heads, new_order
        self.norm = nn.GroupNorm(groups, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        del embedding
        rows, channels, pixels = x.flatten(2).shape
        qkv = self.qkv(self.norm(x.flatten(2)))
        size = channels // self.heads
        if self.new_order:
            q, k, v = qkv.view(rows, 3, self.heads, size, pixels).unbind(1)
        else:
            q, k, v = qkv.view(rows, self.heads, 3, size, pixels).unbind(2)
        weights = torch.einsum("bhct,bhcs->bhts", q, k) / math.sqrt(size)
        h = torch.einsum("bhts,bhcs->bhct", weights.softmax(-1), v)
        return x + self.proj_out(h.reshape(rows, channels, pixels)).view_as(x)


class Upsample(nn.Module):
    def __init__(self, channels: int, learned: bool):
        super().__init__()
        if learned:
            self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        del embedding
        x = nn.functional.interpolate(x, scale_factor=2, mode="nearest")
        return self.conv(x) if hasattr(self, "conv") else x


class Downsample(nn.Module):
    def __init__(self, channels: int, learned: bool):
        super().__init__()
        convolution = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        self.op = convolution if learned else nn.AvgPool2d(2)

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        del embedding
        return self.op(x)


class First(nn.Conv2d):
    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        del embedding
        return super().forward(x)


class Chain(nn.Sequential):
    """Modules one after another, each of which is told the condition."""

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        for module in self:
            x = module(x, embedding)
        return x


class OfficialUNet(nn.Module):
    """x (rows, channels, height, width), t (rows,), labels (rows,) or None -> shaped as x."""

    def __init__(
        self,
        *,
        channels: int,
        width: int,
        depth: int,
        mults: tuple[int, ...],
        factors: tuple[int, ...],
        head_size: int,
        groups: int = 32,
        classes: int = 0,
        scales: bool = False,
        resampling: str = "conv",
        new_order: bool = False,
    ):
        super().__init__()
        self.width, embedding = width, 4 * width

        def residual(inputs: int, outputs: int, resample: str = "") -> Residual:
            return Residual(inputs, outputs, embedding, groups, scales, resample)

        def attention(channels: int) -> Attention:
            return Attention(channels, channels // head_size, groups, new_order)

        self.time_embed = nn.Sequential(
            nn.Linear(width, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )
        if classes:
            self.label_emb = nn.Embedding(classes, embedding)
        now = mults[0] * width
        self.input_blocks = nn.ModuleList([Chain(First(channels, now, 3, padding=1))])
        kept, factor = [now], 1
        for level, mult in enumerate(mults):
            for _ in range(depth):
                modules = [residual(now, mult * width)]
                now = mult * width
                if factor in factors:
                    modules.append(attention(now))
                self.input_blocks.append(Chain(*modules))
                kept.append(now)
            if level < len(mults) - 1:
                inside = resampling == "residual"
                down = (
                    residual(now, now, "down") if inside else Downsample(now, resampling == "conv")
                )
                self.input_blocks.append(Chain(down))
                kept.append(now)
                factor *= 2
        self.middle_block = Chain(residual(now, now), attention(now), residual(now, now))
        self.output_blocks = nn.ModuleList()
        for level, mult in reversed(list(enumerate(mults))):
            for i in range(depth + 1):
                modules = [residual(now + kept.pop(), mult * width)]
                now = mult * width
                if factor in factors:
                    modules.append(attention(now))
                if level > 0 and i == depth:
                    inside = resampling == "residual"
                    modules.append(
                        residual(now, now, "up") if inside else Upsample(now, resampling == "conv")
                    )
                    factor //= 2
                self.output_blocks.append(Chain(*modules))
        self.out = nn.Sequential(
            nn.GroupNorm(groups, now), nn.SiLU(), nn.Conv2d(now, channels, 3, padding=1)
        )

    def forward(
        self, x: torch.Tensor, t: torch.Tensor, labels: torch.Tensor | None = None
    ) -> torch.Tensor:
        half = self.width // 2
        frequencies = torch.exp(-math.log(10_000) * torch.arange(half, dtype=t.dtype) / half)
        angles = t[:, None] * frequencies
        embedding = self.time_embed(torch.cat([angles.cos(), angles.sin()], dim=1))
        if labels is not None:
            embedding = embedding + self.label_emb(labels)
        kept = []
        for block in self.input_blocks:
            x = block(x, embedding)
            kept.append(x)
        x = self.middle_block(x, embedding)
        for block in self.output_blocks:
            x = block(torch.cat([x, kept.pop()], dim=1), embedding)
        return self.out(x)
