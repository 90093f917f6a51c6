"""Writes cases.rs beside it: layers and losses with their gradients, as PyTorch computes them in float64.

    python crates/nn/tests/goldens/generate.py

Written with PyTorch 2.15. Inputs and parameters are short decimals, so that both sides start from the same numbers.
"""
import pathlib
import torch
from torch import nn

torch.manual_seed(20261121)
torch.set_default_dtype(torch.float64)
cases = []


def rough(*shape, low=-2.0, high=2.0):
    return (torch.rand(*shape) * (high - low) + low).mul(100).round().div(100)


def flat(t):
    return "&[" + ", ".join(f"{v:.13g}" if v != int(v) or abs(v) > 1e9 else f"{v:.1f}" for v in t.double().flatten().tolist()) + "]"


def add(name, tensors):
    body = "".join(f'        ("{k}", &{list(v.shape)}, {flat(v)}),\n' for k, v in tensors.items())
    cases.append(f'    Case {{ name: "{name}", tensors: &[\n{body}    ] }},\n')


def layer(name, module, x, call=None, train=False, **extra):
    """x and parameters in; y, the gradients of sum(y*g), and the state after the call out."""
    module.train(train)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(rough(*p.shape))
        for k, b in module.named_buffers():
            if b.dtype.is_floating_point:
                b.copy_(rough(*b.shape, low=0.5, high=2.0))
    tensors = {"x": x, **extra}
    tensors |= {f"before.{k}": v.clone() for k, v in module.state_dict().items()}
    leaf = x.clone().requires_grad_() if x.dtype.is_floating_point else x
    y = call(module, leaf) if call else module(leaf)
    g = rough(*y.shape)
    (y * g).sum().backward()
    tensors |= {"g": g, "y": y.detach()}
    if leaf.dtype.is_floating_point:
        tensors["grad.x"] = leaf.grad
    tensors |= {f"grad.{k}": p.grad for k, p in module.named_parameters()}
    tensors |= {f"after.{k}": v for k, v in module.named_buffers()}
    add(name, tensors)


def loss(name, f, x, target, **extra):
    leaf = x.clone().requires_grad_()
    y = f(leaf, target)
    y.sum().backward()
    add(name, {"x": x, "target": target, **extra, "y": y.detach(), "grad.x": leaf.grad})


layer("linear", nn.Linear(3, 2), rough(2, 2, 3))
layer("linear_no_bias", nn.Linear(3, 2, bias=False), rough(4, 3))
layer("conv1d", nn.Conv1d(2, 4, 3, stride=2, padding=1, groups=2), rough(1, 2, 6))
layer("conv2d", nn.Conv2d(2, 2, (3, 2), stride=(1, 2), padding=(1, 0), dilation=(2, 1)), rough(1, 2, 5, 4))
layer("conv2d_same", nn.Conv2d(1, 1, (2, 3), padding="same"), rough(1, 1, 3, 3))
layer("conv_transpose2d", nn.ConvTranspose2d(2, 1, 2, stride=2, output_padding=1), rough(1, 2, 2, 2))
layer("batch_norm1d_train", nn.BatchNorm1d(2), rough(4, 2), train=True)
layer("batch_norm1d_eval", nn.BatchNorm1d(2), rough(3, 2, 2))
layer("batch_norm2d_train", nn.BatchNorm2d(2), rough(2, 2, 2, 2), train=True)
layer("batch_norm2d_cumulative", nn.BatchNorm2d(2, momentum=None), rough(2, 2, 1, 2), train=True)
layer("layer_norm", nn.LayerNorm((2, 3)), rough(2, 2, 3))
layer("group_norm", nn.GroupNorm(2, 4), rough(2, 4, 2))
layer("rms_norm", nn.RMSNorm(4, eps=1e-6), rough(2, 4))
layer("embedding", nn.Embedding(4, 2, padding_idx=1), torch.tensor([[3, 1], [3, 0]]))
layer("prelu", nn.PReLU(2), rough(2, 2, 2))
layer("max_pool2d", nn.MaxPool2d(2, stride=1, padding=1), rough(1, 1, 3, 3))
layer("avg_pool2d", nn.AvgPool2d((2, 1), padding=(1, 0)), rough(1, 1, 4, 3))
layer("adaptive_avg_pool2d", nn.AdaptiveAvgPool2d((2, 3)), rough(1, 1, 5, 4))
layer("adaptive_max_pool1d", nn.AdaptiveMaxPool1d(2), rough(1, 2, 5))
layer("attention", nn.MultiheadAttention(4, 2, batch_first=True), rough(2, 3, 4), call=lambda m, x: m(x, x, x)[0])
memory = rough(1, 3, 4)
layer("attention_masked", nn.MultiheadAttention(4, 2, bias=False, batch_first=True), rough(1, 2, 4), memory=memory,
      mask=torch.tensor([[True, True, False], [False, True, True]]),
      call=lambda m, x: m(x, memory, memory, attn_mask=torch.tensor([[False, False, True], [True, False, False]]))[0])
for name, module in {
    "relu": nn.ReLU(), "gelu": nn.GELU(), "silu": nn.SiLU(), "mish": nn.Mish(), "elu": nn.ELU(), "selu": nn.SELU(), "celu": nn.CELU(0.5),
    "leaky_relu": nn.LeakyReLU(), "hardtanh": nn.Hardtanh(), "hardshrink": nn.Hardshrink(), "softshrink": nn.Softshrink(), "glu": nn.GLU(),
    "softmax": nn.Softmax(-1), "log_softmax": nn.LogSoftmax(-1), "softplus": nn.Softplus(), "hardswish": nn.Hardswish(), "tanhshrink": nn.Tanhshrink(),
}.items():
    layer(name, module, rough(2, 4))

logits, classes, weight = rough(4, 3), torch.tensor([2, 0, 1, 2]), rough(3, low=0.2)
ignoring = torch.tensor([2, -100, 1, 2])
for reduction in ["mean", "sum", "none"]:
    loss(f"cross_entropy_{reduction}", nn.CrossEntropyLoss(reduction=reduction), logits, classes)
    loss(f"nll_{reduction}", nn.NLLLoss(weight=weight, reduction=reduction), logits.log_softmax(1), ignoring, weight=weight)
loss("cross_entropy_everything", nn.CrossEntropyLoss(weight=weight, label_smoothing=0.2), logits, ignoring, weight=weight)
loss("cross_entropy_images", nn.CrossEntropyLoss(ignore_index=0, label_smoothing=0.1), rough(2, 3, 2), torch.tensor([[2, 0], [1, 1]]))
loss("nll_images", nn.NLLLoss(), rough(2, 3, 2), torch.tensor([[2, 0], [1, 1]]))
x, t = rough(2, 3), rough(2, 3)
p = rough(2, 3, low=0.0, high=1.0)
w = rough(3, low=0.5)
loss("bce_with_logits", nn.BCEWithLogitsLoss(), torch.cat([x[:1], torch.tensor([[-40.0, 40.0, 0.0]])]), p)
loss("bce_with_logits_weights", nn.BCEWithLogitsLoss(weight=p, pos_weight=w), x, p, weight=p, positive_weight=w)
loss("mse", nn.MSELoss(), x, t)
loss("mse_sum", nn.MSELoss(reduction="sum"), x, t)
loss("l1", nn.L1Loss(), x, t)
loss("huber", nn.HuberLoss(delta=0.8), x, t)
loss("smooth_l1", nn.SmoothL1Loss(beta=0.5), x, t)
loss("smooth_l1_none", nn.SmoothL1Loss(beta=0.0, reduction="none"), x, t)

head = '''//! Written by generate.py: layers and losses with their gradients, as PyTorch computes them.

use super::Case;

#[rustfmt::skip]
pub static CASES: &[Case] = &[
'''
pathlib.Path(__file__).with_name("cases.rs").write_text(head + "".join(cases) + "];\n")
