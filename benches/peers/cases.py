"""The cases of the comparison: shapes, optimizers and the names of the tensors in their files.

One table, read by all programs here; weights are named as in PyTorch's state_dict. README.md describes files and contract.
"""

from dataclasses import dataclass, field, replace

BATCHES = 16  # step i trains on batch i % 16, so that no case decays into denormals by learning one batch by heart


@dataclass(frozen=True)
class Case:
    what: str
    kind: str  # "train", or one of the pieces of README.md
    weights: dict[str, tuple[int, ...]]  # name -> shape
    x: tuple[int, ...]
    steps: int  # timed steps when none are asked for
    warmup: int = 20  # steps before, at least
    model: str = ""  # of kind "train"
    tokens: int = 0  # x holds so many kinds of token, and each one's label is the next; 0: x is of numbers
    optimizer: str = ""
    lr: float = 0.0
    classes: int = 0
    variants: tuple[str, ...] = ("eager",)  # PyTorch's candidates; "best" is the fastest of them
    targets: dict[str, tuple[str, float]] = field(default_factory=dict)
    # row -> ("ratio", at least this much faster than PyTorch) or ("us", at most this many microseconds)
    large: bool = False  # too large for the check of losses in CI
    replayed: bool = False  # Gradus's steps are also measured as replays of a record


def mlp(inputs: int, hidden: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {
        "fc1.weight": (hidden, inputs),
        "fc1.bias": (hidden,),
        "fc2.weight": (outputs, hidden),
        "fc2.bias": (outputs,),
    }


def lstm(inputs: int, hidden: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {
        "lstm.weight_ih_l0": (4 * hidden, inputs),
        "lstm.weight_hh_l0": (4 * hidden, hidden),
        "lstm.bias_ih_l0": (4 * hidden,),
        "lstm.bias_hh_l0": (4 * hidden,),
        "fc.weight": (outputs, hidden),
        "fc.bias": (outputs,),
    }


def norm(name: str, channels: int, running: bool = True) -> dict[str, tuple[int, ...]]:
    shapes = {f"{name}.weight": (channels,), f"{name}.bias": (channels,)}
    if running:
        shapes |= {f"{name}.running_mean": (channels,), f"{name}.running_var": (channels,)}
        shapes |= {f"{name}.num_batches_tracked": ()}
    return shapes


def resnet20(classes: int) -> dict[str, tuple[int, ...]]:
    """Three stages of three blocks of two 3×3 convolutions; 1×1 convolutions where a stage begins."""
    shapes = {"conv1.weight": (16, 3, 3, 3), **norm("bn1", 16)}
    inputs = 16
    for stage, width in enumerate((16, 32, 64), 1):
        for block in range(3):
            name = f"layer{stage}.{block}"
            shapes |= {f"{name}.conv1.weight": (width, inputs, 3, 3), **norm(f"{name}.bn1", width)}
            shapes |= {f"{name}.conv2.weight": (width, width, 3, 3), **norm(f"{name}.bn2", width)}
            if inputs != width:
                shapes |= {f"{name}.downsample.0.weight": (width, inputs, 1, 1)}
                shapes |= norm(f"{name}.downsample.1", width)
            inputs = width
    return shapes | {"fc.weight": (classes, 64), "fc.bias": (classes,)}


def gpt(layers: int, width: int, tokens: int, context: int) -> dict[str, tuple[int, ...]]:
    """GPT-2's block; the head is the table of tokens."""
    shapes: dict[str, tuple[int, ...]] = {"wte.weight": (tokens, width), "wpe.weight": (context, width)}
    for i in range(layers):
        shapes |= norm(f"h.{i}.ln_1", width, running=False)
        shapes |= {f"h.{i}.attn.in_proj_weight": (3 * width, width), f"h.{i}.attn.in_proj_bias": (3 * width,)}
        shapes |= {f"h.{i}.attn.out_proj.weight": (width, width), f"h.{i}.attn.out_proj.bias": (width,)}
        shapes |= norm(f"h.{i}.ln_2", width, running=False)
        shapes |= {f"h.{i}.c_fc.weight": (4 * width, width), f"h.{i}.c_fc.bias": (4 * width,)}
        shapes |= {f"h.{i}.c_proj.weight": (width, 4 * width), f"h.{i}.c_proj.bias": (width,)}
    return shapes | norm("ln_f", width, running=False)


MLP_VARIANTS = ("eager", "fused", "compile", "fused+compile", "compile+compile_opt")

CASES: dict[str, Case] = {
    "C1": Case(
        what="MLP 64-32-10, batch 32, SGD",
        kind="train",
        model="mlp",
        weights=mlp(64, 32, 10),
        x=(BATCHES, 32, 64),
        steps=5000,
        optimizer="sgd",
        lr=0.1,
        classes=10,
        variants=MLP_VARIANTS,
        targets={"step": ("ratio", 30.0)},
        replayed=True,
    ),
    "C2": Case(
        what="MLP 784-128-10, batch 64, AdamW",
        kind="train",
        model="mlp",
        weights=mlp(784, 128, 10),
        x=(BATCHES, 64, 784),
        steps=3000,
        optimizer="adamw",
        lr=1e-3,
        classes=10,
        variants=MLP_VARIANTS,
        targets={"step": ("ratio", 3.0)},
        replayed=True,
    ),
    "C3": Case(
        what="LSTM, 28 steps of 28 numbers, hidden 128, batch 64, Adam",
        kind="train",
        model="lstm",
        weights=lstm(28, 128, 10),
        x=(BATCHES, 64, 28, 28),
        steps=300,
        optimizer="adam",
        lr=1e-3,
        classes=10,
        variants=("eager", "fused", "fused+compile"),
        targets={"step": ("ratio", 1.7)},
        replayed=True,
    ),
    "C4": Case(
        what="MNIST CNN, batch 64, Adam",
        kind="train",
        model="cnn",
        weights={
            "conv1.weight": (32, 1, 3, 3),
            "conv1.bias": (32,),
            "conv2.weight": (64, 32, 3, 3),
            "conv2.bias": (64,),
            **mlp(9216, 128, 10),
        },
        x=(BATCHES, 64, 1, 28, 28),
        steps=100,
        optimizer="adam",
        lr=1e-3,
        classes=10,
        variants=(
            "eager",
            "fused",
            "channels_last",
            "fused+channels_last",
            "fused+compile",
            "fused+channels_last+compile",
        ),
        targets={"step": ("ratio", 2.0)},
        replayed=True,
    ),
    "C5": Case(
        what="ResNet-20 on 3×32×32, batch 128, SGD with momentum",
        kind="train",
        model="resnet20",
        weights=resnet20(10),
        x=(BATCHES, 128, 3, 32, 32),
        steps=40,
        optimizer="momentum",
        lr=0.001,
        classes=10,
        variants=("eager", "channels_last", "fused+channels_last", "channels_last+compile", "compile"),
        targets={"step": ("ratio", 1.6)},
        replayed=True,
    ),
    "C6": Case(
        what="GPT, 4 layers, 4 heads, width 128, 64 tokens, batch 12, AdamW",
        kind="train",
        model="gpt",
        weights=gpt(4, 128, 65, 64),
        x=(BATCHES, 12, 64),
        tokens=65,
        steps=100,
        optimizer="adamw",
        lr=1e-3,
        variants=("eager", "fused", "fused+compile"),
        targets={"step": ("ratio", 1.6)},
        replayed=True,
    ),
    "C7": Case(
        what="GPT, 6 layers, 6 heads, width 384, 256 tokens, batch 8, AdamW",
        kind="train",
        model="gpt",
        weights=gpt(6, 384, 65, 256),
        x=(BATCHES, 8, 256),
        tokens=65,
        steps=20,
        optimizer="adamw",
        lr=1e-3,
        variants=("eager", "fused", "fused+compile"),
        targets={"step": ("ratio", 1.2)},
        large=True,
        replayed=True,
    ),
    "C8": Case(
        what="AdamW over 100 tensors of 65,536",
        kind="update",
        weights={f"p{i}": (65536,) for i in range(100)},
        x=(100, 65536),
        steps=300,
        optimizer="adamw",
        lr=1e-3,
        variants=("eager", "fused"),
        targets={"step": ("ratio", 1.0)},
    ),
    "C9": Case(
        what="x + dropout(gelu(layer norm x)), 2048×1024, forward and backward",
        kind="residual",
        weights=norm("norm", 1024, running=False),
        x=(2048, 1024),
        steps=200,
        targets={"step": ("ratio", 3.0)},
    ),
    "C9c": Case(what="", kind="", weights={}, x=(), steps=0),
    "C10": Case(
        what="linear 768→50304 and cross-entropy, 256 rows, forward and backward",
        kind="head",
        weights={"weight": (50304, 768)},
        x=(4, 256, 768),
        steps=20,
        warmup=5,
        classes=50304,
        variants=("eager", "compile"),
        targets={"step": ("ratio", 1.2)},
        large=True,
    ),
    "C11": Case(
        what="GPT-2 of 124M parameters, 64 tokens, batch 4, AdamW",
        kind="train",
        model="gpt",
        weights=gpt(12, 768, 50257, 1024),
        x=(BATCHES, 4, 64),
        tokens=50257,
        steps=10,
        warmup=5,
        optimizer="adamw",
        lr=1e-4,
        variants=("eager", "fused"),
        targets={"step": ("ratio", 1.1)},
        large=True,
    ),
    "C12": Case(
        what="MLP 784-128-10, one epoch of 60,000 rows with the loader, batch 64, AdamW",
        kind="epoch",
        model="mlp",
        weights=mlp(784, 128, 10),
        x=(1, 60000, 784),
        steps=5,
        warmup=1,
        optimizer="adamw",
        lr=1e-3,
        classes=10,
        variants=("eager", "fused"),
        targets={"step": ("ratio", 4.0)},
        large=True,
        replayed=True,
    ),
    "C13": Case(
        what="save and load 124M parameters with Adam's state, in memory's file system",
        kind="files",
        weights=gpt(12, 768, 50257, 1024),
        x=(1,),
        steps=5,
        warmup=1,
        variants=("eager", "safetensors"),
        targets={"save": ("us", 746_000.0), "load": ("us", 746_000.0), "map": ("us", 20_000.0)},
        large=True,
    ),
    "matmul": Case(
        what="matrix product 1024×1024×1024, f32",
        kind="matmul",
        weights={"b": (1024, 1024)},
        x=(1024, 1024),
        steps=200,
        targets={"step": ("ratio", 0.9)},
    ),
    "C14": Case(
        what="1-element add; 3-node forward + backward",
        kind="ops",
        weights={"w": (1,)},
        x=(1,),
        steps=3000,  # 300 take 30 ms: whatever the host does to the machine in one of its slices would be the result
        targets={"add": ("us", 0.15), "graph3": ("us", 1.0)},
    ),
}
# PyTorch's compiler fuses C9; that is measured apart from its eager form.
CASES["C9c"] = replace(CASES["C9"], variants=("compile",), targets={"step": ("ratio", 1.0)})

# For a device in software too (`run.py --device wgpu:0`): the nets of C4 and C6, so small that a step takes well under a second there.
GPU_CASES = {
    "G4": replace(CASES["C4"], what="MNIST CNN, batch 8, Adam", x=(BATCHES, 8, 1, 28, 28), steps=30, targets={}),
    "G6": replace(
        CASES["C6"],
        what="GPT, 2 layers, 4 heads, width 64, 32 tokens, batch 8, AdamW",
        weights=gpt(2, 64, 65, 32),
        x=(BATCHES, 8, 32),
        steps=30,
        targets={},
    ),
}
ALL = CASES | GPU_CASES
