"""The cases of the comparison: shapes, optimizers and the names of the tensors in their files.

One table, read by all three programs here. A case of kind "train" is a classifier: every weight named as in PyTorch's
state_dict, batches `x` and labels `y`. "matmul" and "ops" have no labels. README.md describes files and contract.
"""

from dataclasses import dataclass, field

BATCHES = 16  # step i trains on batch i % 16, so that no case decays into denormals by learning one batch by heart


@dataclass(frozen=True)
class Case:
    what: str
    kind: str  # "train", "matmul" or "ops"
    weights: dict[str, tuple[int, ...]]  # name -> shape; fan-in is the product of all but the first dimension
    x: tuple[int, ...]
    steps: int  # timed steps when none are asked for
    optimizer: str = ""
    lr: float = 0.0
    classes: int = 0
    variants: tuple[str, ...] = ("eager",)  # PyTorch's candidates; "best" is the fastest of them
    targets: dict[str, tuple[str, float]] = field(default_factory=dict)
    # row -> ("ratio", at least this much faster than PyTorch) or ("us", at most this many microseconds)


def mlp(inputs: int, hidden: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {
        "fc1.weight": (hidden, inputs),
        "fc1.bias": (hidden,),
        "fc2.weight": (outputs, hidden),
        "fc2.bias": (outputs,),
    }


MLP_VARIANTS = ("eager", "fused", "compile", "fused+compile", "compile+compile_opt")

CASES: dict[str, Case] = {
    "C1": Case(
        what="MLP 64-32-10, batch 32, SGD",
        kind="train",
        weights=mlp(64, 32, 10),
        x=(BATCHES, 32, 64),
        steps=5000,
        optimizer="sgd",
        lr=0.1,
        classes=10,
        variants=MLP_VARIANTS,
        targets={"step": ("ratio", 30.0)},
    ),
    "C2": Case(
        what="MLP 784-128-10, batch 64, AdamW",
        kind="train",
        weights=mlp(784, 128, 10),
        x=(BATCHES, 64, 784),
        steps=3000,
        optimizer="adamw",
        lr=1e-3,
        classes=10,
        variants=MLP_VARIANTS,
        targets={"step": ("ratio", 3.0)},
    ),
    "C4": Case(
        what="MNIST CNN, batch 64, Adam",
        kind="train",
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
        steps=300,
        targets={"add": ("us", 0.15), "graph3": ("us", 1.0)},
    ),
}
