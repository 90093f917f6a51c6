"""What the modules' goldens leave out: parametrizations, tables, other widths, adapters, whole encoders. Writes layers.safetensors.

needs: pip install torch numpy safetensors
run:   python generate.py   (in this directory)
"""
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

torch.manual_seed(0)
store = {}


def case(name, module, *inputs, call=None, train=False):
    """State, inputs, output, and the gradients of the output's sum of squares."""
    module.train(train)
    leaves = [x.clone().requires_grad_() if x.is_floating_point() else x for x in inputs]
    store.update({f"{name}.state.{k}": v.clone() for k, v in module.state_dict().items()})
    store.update({f"{name}.in{i}": x.clone() for i, x in enumerate(inputs)})
    y = (call or module)(*leaves)
    y.square().sum().backward()
    store[f"{name}.out"] = y.detach()
    store.update({f"{name}.grad{i}": x.grad for i, x in enumerate(leaves) if x.is_floating_point()})
    store.update({f"{name}.grad.{k}": p.grad for k, p in module.named_parameters() if p.requires_grad})
    store.update({f"{name}.after.{k}": v.clone() for k, v in module.named_buffers()})


case("weight_norm_linear", parametrizations.weight_norm(nn.Linear(4, 3)), torch.randn(2, 4))
case("weight_norm_conv", parametrizations.weight_norm(nn.Conv1d(2, 3, 3)), torch.randn(2, 2, 6))
case("weight_norm_transposed", parametrizations.weight_norm(nn.ConvTranspose1d(2, 3, 3)), torch.randn(2, 2, 6))
case("spectral_norm_linear", parametrizations.spectral_norm(nn.Linear(4, 3)), torch.randn(2, 4))
case("spectral_norm_train", parametrizations.spectral_norm(nn.Linear(4, 3)), torch.randn(2, 4), train=True)
case("spectral_norm_transposed", parametrizations.spectral_norm(nn.ConvTranspose1d(2, 3, 3)), torch.randn(2, 2, 6))
attention = nn.MultiheadAttention(8, 2, kdim=5, vdim=6, batch_first=True)
case("attention_widths", attention, torch.randn(2, 3, 8), torch.randn(2, 4, 5), torch.randn(2, 4, 6),
     call=lambda q, k, v: attention(q, k, v, need_weights=False)[0])
layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
case("encoder", nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(8), enable_nested_tensor=False), torch.randn(2, 3, 8))
index = torch.tensor([[3, 0, 7], [3, 1, 2]])
bag = nn.EmbeddingBag(10, 4, mode="mean", padding_idx=0)
case("embedding_bag", bag, index)
limited = nn.Embedding(10, 4)
before = limited.weight.detach().clone()
limited.max_norm = 1.0
case("max_norm", limited, index)
store["max_norm.state.weight"] = before
case("conv_reflect", nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), torch.randn(2, 2, 4, 4))
case("conv_circular_same", nn.Conv1d(2, 3, 4, padding="same", padding_mode="circular"), torch.randn(2, 2, 6))
case("upsample", nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), torch.randn(1, 2, 3, 3))
case("unfold", nn.Unfold(2, padding=1, stride=2), torch.randn(1, 2, 4, 4))
case("fold", nn.Fold((4, 4), 2, padding=1, stride=2), torch.randn(1, 8, 9))


def rope(x, base=10000.0):
    half = x.shape[-1] // 2
    angle = torch.arange(x.shape[-2])[:, None] * base ** (-torch.arange(half) / half)
    turned = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(angle), angle)
    return torch.cat([turned.real, turned.imag], -1)


case("rotary", nn.Identity(), torch.randn(2, 5, 8), call=rope)


def focal(x):
    t = torch.tensor([0.0, 1.0, 1.0, 0.0])
    p, ce = x.sigmoid(), F.binary_cross_entropy_with_logits(x, t, reduction="none")
    p_t = p * t + (1 - p) * (1 - t)
    return (0.25 * t + 0.75 * (1 - t)) * (1 - p_t) ** 2 * ce


case("binary_focal", nn.Identity(), torch.randn(4), call=focal)


class Grouped(nn.Module):
    """Causal grouped-query attention with rotary positions."""

    def __init__(self, width=16, heads=4, kv_heads=2):
        super().__init__()
        self.heads, self.kv_heads, narrow = heads, kv_heads, width // heads * kv_heads
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, narrow, bias=False)
        self.v_proj = nn.Linear(width, narrow, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)

    def forward(self, x):
        split = lambda y, n: y.unflatten(-1, (n, -1)).transpose(1, 2)
        q, k = rope(split(self.q_proj(x), self.heads)), rope(split(self.k_proj(x), self.kv_heads))
        v = split(self.v_proj(x), self.kv_heads)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.o_proj(y.transpose(1, 2).flatten(2))


class GatedFeedForward(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate_proj, self.up_proj = nn.Linear(4, 6, bias=False), nn.Linear(4, 6, bias=False)
        self.down_proj = nn.Linear(6, 4, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Adapter(nn.Module):
    def __init__(self, inputs, outputs, rank=2):
        super().__init__()
        self.lora_a, self.lora_b = nn.Parameter(0.3 * torch.randn(rank, inputs)), nn.Parameter(0.3 * torch.randn(outputs, rank))

    def forward(self, x):
        return 1.5 * x @ self.lora_a.T @ self.lora_b.T


class LoraLinear(nn.Module):
    def __init__(self):
        super().__init__()
        self.base, self.adapter = nn.Linear(4, 3).requires_grad_(False), Adapter(4, 3)

    def forward(self, x):
        return self.base(x) + self.adapter(x)


class LoraEmbedding(nn.Module):
    def __init__(self):
        super().__init__()
        self.base = nn.Embedding(10, 4).requires_grad_(False)
        self.lora_a, self.lora_b = nn.Parameter(torch.randn(2, 10)), nn.Parameter(torch.randn(4, 2))

    def forward(self, index):
        return self.base(index) + 1.5 * F.embedding(index, self.lora_a.T) @ self.lora_b.T


class LoraAttention(nn.Module):
    """Adapters beside all four projections of two heads."""

    def __init__(self):
        super().__init__()
        self.base = nn.MultiheadAttention(8, 2, batch_first=True).requires_grad_(False)
        self.query, self.key, self.value, self.output = (Adapter(8, 8) for _ in range(4))

    def forward(self, x):
        q, k, v = F.linear(x, self.base.in_proj_weight, self.base.in_proj_bias).chunk(3, -1)
        split = lambda y: y.unflatten(-1, (2, -1)).transpose(1, 2)
        q, k, v = split(q + self.query(x)), split(k + self.key(x)), split(v + self.value(x))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        return self.base.out_proj(y) + self.output(y)


case("grouped", Grouped(), torch.randn(2, 5, 16))
case("gated", GatedFeedForward(), torch.randn(2, 4))
case("lora_linear", LoraLinear(), torch.randn(2, 4))
case("lora_embedding", LoraEmbedding(), index)
case("lora_attention", LoraAttention(), torch.randn(2, 5, 8))


def info_nce(q, k):
    scores = F.normalize(q, dim=1) @ F.normalize(k, dim=1).T / 0.2
    own = torch.arange(len(q))
    return F.cross_entropy(scores, own) / 2 + F.cross_entropy(scores.T, own) / 2


def dice(p):
    t = (torch.arange(24) % 3 == 0).float().reshape(2, 3, 4)
    return 1 - (2 * (p * t).sum(2) + 1) / (p.square().sum(2) + t.square().sum(2) + 1)


def focal_classes(x):
    t, w = torch.tensor([2, 0, 1, 2]), torch.tensor([0.5, 1.0, 2.0])
    ce = F.cross_entropy(x, t, reduction="none")
    return w[t] * (1 - (-ce).exp()) ** 2 * ce


case("info_nce", nn.Identity(), torch.randn(4, 3), torch.randn(4, 3), call=info_nce)
case("dice", nn.Identity(), torch.rand(2, 3, 4), call=dice)
case("focal", nn.Identity(), torch.randn(4, 3), call=focal_classes)
save_file({k: v.contiguous() for k, v in store.items()}, "layers.safetensors")
