"""Writes networks.txt: what PyTorch gives for the cases of tests/networks.rs, in f64.

Inputs are a function of their place and index (`numbers`), so none is stored. Of each output, and of each input's gradient
under a fixed cotangent, the file holds the sum and two weighted sums: `name`, then one field `shape:sum:dot:dot` for each.

    python networks.py > networks.txt        (PyTorch 2.x, any platform)
"""
import numpy as np
import torch
import torch.nn.functional as F

torch.set_default_dtype(torch.float64)


def numbers(shape, seed):
    """SplitMix64 of (seed, index); the top 24 bits as a number in [-1, 1)."""
    n = int(np.prod(shape)) if len(shape) else 1
    with np.errstate(over="ignore"):
        z = np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15) + np.arange(n, dtype=np.uint64) * np.uint64(0xD1B54A32D192ED03)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return torch.tensor((z >> np.uint64(40)).astype(np.float64) / 2**23 - 1.0).reshape(shape)


def field(t):
    t = t.detach().double()
    shape = "x".join(map(str, t.shape)) or "-"
    dots = [float((t * numbers(tuple(t.shape), s)).sum()) for s in (101, 102)]
    return f"{shape}:{float(t.sum()):.15g}:{dots[0]:.15g}:{dots[1]:.15g}"


def case(name, shapes, run):
    x = [numbers(s, i + 1).requires_grad_() for i, s in enumerate(shapes)]
    out = run(*x)
    out = list(out) if isinstance(out, (tuple, list)) else [out]
    loss = sum((o * numbers(tuple(o.shape), 201 + i)).sum() for i, o in enumerate(out) if o.dtype.is_floating_point)
    grads = torch.autograd.grad(loss, x)
    print(name, *[field(t) for t in out + list(grads)])


# Convolutions: name, x, w, bias?, arguments.
conv = lambda f, **k: lambda x, w, b=None: f(x, w, b, **k)
case("conv1d", [(2, 3, 11), (4, 3, 3), (4,)], conv(F.conv1d))
case("conv1d_options", [(2, 4, 12), (6, 2, 3), (6,)], conv(F.conv1d, stride=3, padding=2, dilation=2, groups=2))
case("conv1d_same", [(3, 10), (2, 3, 4)], conv(F.conv1d, padding="same", dilation=3))
case("conv2d", [(3, 2, 9, 20), (17, 2, 3, 3), (17,)], conv(F.conv2d))
case("conv2d_padded", [(2, 3, 8, 8), (9, 3, 3, 3), (9,)], conv(F.conv2d, padding=1))
case("conv2d_strided", [(2, 3, 9, 11), (5, 3, 3, 3), (5,)], conv(F.conv2d, stride=2, padding=1))
case("conv2d_uneven", [(2, 3, 10, 13), (5, 3, 2, 4), (5,)], conv(F.conv2d, stride=(3, 2), padding=(2, 1), dilation=(2, 3)))
case("conv2d_wide_stride", [(2, 3, 10, 13), (5, 3, 2, 2)], conv(F.conv2d, stride=(4, 3)))
case("conv2d_depthwise", [(2, 6, 7, 7), (12, 1, 3, 3), (12,)], conv(F.conv2d, padding=1, groups=6))
case("conv2d_groups", [(2, 6, 7, 40), (9, 2, 3, 3)], conv(F.conv2d, padding=1, groups=3))
case("conv2d_pointwise", [(2, 12, 5, 6), (10, 12, 1, 1), (10,)], conv(F.conv2d))
case("conv2d_whole", [(3, 4, 5, 5), (6, 4, 5, 5), (6,)], conv(F.conv2d))
case("conv2d_one_image", [(1, 5, 18, 18), (70, 5, 3, 3), (70,)], conv(F.conv2d))
case("conv3d", [(2, 3, 4, 5, 6), (4, 3, 2, 3, 2), (4,)], conv(F.conv3d))
case("conv3d_options", [(2, 4, 6, 5, 7), (4, 2, 2, 2, 3)], conv(F.conv3d, stride=(2, 1, 2), padding=(1, 0, 1), dilation=(1, 2, 1), groups=2))
case("conv_transpose1d", [(2, 4, 6), (4, 3, 4), (6,)], conv(F.conv_transpose1d, stride=2, padding=1, groups=2))
case("conv_transpose2d", [(2, 3, 5, 6), (3, 4, 3, 3), (4,)], conv(F.conv_transpose2d))
case("conv_transpose2d_options", [(2, 4, 5, 6), (4, 3, 3, 2), (6,)], conv(F.conv_transpose2d, stride=(3, 2), padding=(1, 0), output_padding=(2, 1), groups=2, dilation=(2, 1)))
case("conv_transpose2d_dilated", [(2, 3, 4, 4), (3, 2, 3, 3)], conv(F.conv_transpose2d, stride=2, dilation=3, output_padding=2))
case("conv_transpose3d", [(1, 3, 3, 4, 3), (3, 2, 2, 3, 2), (2,)], conv(F.conv_transpose3d, stride=(2, 1, 2), padding=(0, 1, 1)))

# Pooling.
case("max_pool1d", [(2, 3, 11)], lambda x: F.max_pool1d(x, 3, 2, 1, return_indices=True))
case("max_pool2d", [(2, 3, 8, 10)], lambda x: F.max_pool2d(x, 2, return_indices=True))
case("max_pool2d_options", [(2, 3, 9, 11)], lambda x: F.max_pool2d(x, (3, 2), (2, 3), (1, 1), (2, 1), ceil_mode=True, return_indices=True))
case("max_pool2d_overlap", [(2, 3, 9, 17)], lambda x: F.max_pool2d(x, 3, 2, 1, return_indices=True))
case("max_pool3d", [(2, 2, 5, 6, 4)], lambda x: F.max_pool3d(x, 2, (2, 1, 2), 1, ceil_mode=True, return_indices=True))
case("avg_pool1d", [(2, 3, 11)], lambda x: F.avg_pool1d(x, 3, 2, 1, ceil_mode=True))
case("avg_pool2d", [(2, 3, 8, 10)], lambda x: F.avg_pool2d(x, 2))
case("avg_pool2d_options", [(2, 3, 9, 11)], lambda x: F.avg_pool2d(x, (3, 4), (2, 3), (1, 2), ceil_mode=True, count_include_pad=True))
case("avg_pool2d_uncounted", [(2, 3, 9, 11)], lambda x: F.avg_pool2d(x, (3, 4), (2, 3), (1, 2), ceil_mode=True, count_include_pad=False))
case("avg_pool3d", [(2, 2, 5, 6, 4)], lambda x: F.avg_pool3d(x, 2, (2, 1, 2), 1, ceil_mode=True))
case("adaptive_avg_pool2d", [(2, 3, 7, 10)], lambda x: F.adaptive_avg_pool2d(x, (3, 4)))
case("adaptive_avg_pool2d_one", [(2, 3, 7, 10)], lambda x: F.adaptive_avg_pool2d(x, 1))
case("adaptive_max_pool2d", [(2, 3, 7, 10)], lambda x: F.adaptive_max_pool2d(x, (3, 4), return_indices=True))
case("adaptive_max_pool3d", [(1, 2, 3, 5, 4)], lambda x: F.adaptive_max_pool3d(x, (2, 3, 3), return_indices=True))

# Resizing.
for mode in ("nearest", "nearest-exact", "bilinear", "bicubic", "area"):
    case(f"interpolate_{mode}", [(2, 3, 5, 7)], lambda x: F.interpolate(x, (8, 4), mode=mode))
for mode in ("bilinear", "bicubic"):
    case(f"interpolate_{mode}_aligned", [(2, 3, 5, 7)], lambda x: F.interpolate(x, (8, 4), mode=mode, align_corners=True))
    case(f"interpolate_{mode}_by", [(2, 3, 5, 7)], lambda x: F.interpolate(x, scale_factor=1.7, mode=mode))
case("interpolate_nearest_by", [(2, 3, 5, 7)], lambda x: F.interpolate(x, scale_factor=2.3, mode="nearest"))
case("interpolate_linear", [(2, 3, 6)], lambda x: F.interpolate(x, 11, mode="linear"))
case("interpolate_trilinear", [(1, 2, 3, 4, 5)], lambda x: F.interpolate(x, (5, 3, 7), mode="trilinear"))


# Normalization.
def batch_norm(x, w, b):
    mean, var = torch.zeros(x.shape[1]), torch.ones(x.shape[1])
    y = F.batch_norm(x, mean, var, w, b, True, 1.0, 1e-3)  # momentum 1: the running ones are the batch's, var unbiased
    return y, mean.detach(), var.detach()


def bn_loss(name, shapes):
    x = [numbers(s, i + 1).requires_grad_() for i, s in enumerate(shapes)]
    y, mean, var = batch_norm(*x)
    grads = torch.autograd.grad((y * numbers(tuple(y.shape), 201)).sum(), x)
    print(name, *[field(t) for t in [y, mean, var, *grads]])


def given_statistics(x, m, v, w, b):
    m, v, w, b = (t[None, :, None, None] for t in (m, v * 0.4 + 1, w, b))
    return (x - m) / torch.sqrt(v + 1e-3) * w + b  # PyTorch's own gives no gradient to the statistics


bn_loss("batch_norm_train", [(4, 5, 3, 6), (5,), (5,)])
bn_loss("batch_norm_train_rows", [(9, 5), (5,), (5,)])
case("batch_norm", [(4, 5, 3, 6), (5,), (5,), (5,), (5,)], given_statistics)
case("group_norm", [(3, 6, 4, 5), (6,), (6,)], lambda x, w, b: F.group_norm(x, 3, w, b, 1e-3))
case("instance_norm", [(3, 6, 4, 5), (6,), (6,)], lambda x, w, b: F.instance_norm(x, None, None, w, b, True, 0.1, 1e-3))
case("rms_norm", [(3, 4, 10), (10,)], lambda x, w: F.rms_norm(x, (10,), w, 1e-3))
case("rms_norm_default", [(3, 4, 10)], lambda x: F.rms_norm(x, (4, 10)))

# Attention.
sdpa = F.scaled_dot_product_attention
case("attention", [(2, 3, 5, 4), (2, 3, 7, 4), (2, 3, 7, 6)], lambda q, k, v: sdpa(q, k, v))
case("attention_causal", [(2, 3, 9, 4), (2, 3, 9, 4), (2, 3, 9, 4)], lambda q, k, v: sdpa(q, k, v, is_causal=True))
case("attention_uneven_causal", [(2, 3, 5, 4), (2, 3, 7, 4), (2, 3, 7, 4)], lambda q, k, v: sdpa(q, k, v, is_causal=True, scale=0.3))
case("attention_added", [(2, 3, 5, 4), (2, 3, 7, 4), (2, 3, 7, 4), (3, 1, 7)], lambda q, k, v, m: sdpa(q, k, v, attn_mask=m))
case("attention_masked", [(2, 3, 5, 4), (2, 3, 7, 4), (2, 3, 7, 4)], lambda q, k, v: sdpa(q, k, v, attn_mask=numbers((5, 7), 50) > 0.3))
case("attention_blind", [(2, 5, 4), (2, 7, 4), (2, 7, 4)], lambda q, k, v: sdpa(q, k, v, attn_mask=(torch.arange(5)[:, None] > 1) & torch.ones(7, dtype=torch.bool)))
case("attention_grouped", [(2, 6, 5, 4), (2, 2, 5, 4), (2, 2, 5, 4)], lambda q, k, v: sdpa(q, k, v, enable_gqa=True))

# Einstein's summation.
for i, (spec, shapes) in enumerate([
    ("ij,jk->ik", [(4, 5), (5, 6)]),
    ("ki,jk", [(4, 5), (6, 4)]),
    ("bhqd,bhkd->bhqk", [(2, 3, 4, 5), (2, 3, 6, 5)]),
    ("iij->j", [(4, 4, 5)]),
    ("...ij,...jk->i...k", [(2, 3, 4, 5), (3, 5, 6)]),
    ("ab,bc,cd,da->", [(3, 4), (4, 5), (5, 2), (2, 3)]),
    ("abc,abd->acd", [(3, 4, 5), (3, 4, 2)]),
    ("i...->...", [(3, 4, 5)]),
    ("...,...", [(3, 4), (4,)]),
    ("Ab,bA->Ab", [(3, 4), (4, 3)]),
]):
    case(f"einsum_{i}", shapes, lambda *x: torch.einsum(spec, *x))
