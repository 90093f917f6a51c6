"""What the modules' goldens leave out: parametrizations, tables, other widths, whole encoders. Writes layers.safetensors.

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
    store.update({f"{name}.grad.{k}": p.grad for k, p in module.named_parameters()})
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
save_file({k: v.contiguous() for k, v in store.items()}, "layers.safetensors")
