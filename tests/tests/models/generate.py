"""Models in PyTorch on random weights: logits, and the losses of ten steps of AdamW.

needs: pip install torch numpy safetensors
run:   python generate.py                  (in this directory; writes gpt2.safetensors, resnet18.safetensors, bilstm.safetensors)
       python generate.py gpt2-124m DIR    (writes DIR/gpt2-124m.safetensors, 0.5 GB, in some minutes)

Everything is computed in float64 from float32 weights, and stored in float32: what a float32 run may differ by is then its own error.
"""
import os
import sys

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

torch.set_num_threads(1)


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_2 = nn.LayerNorm(width)
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x, mask):
        h = self.ln_1(x)
        x = x + self.attn(h, h, h, attn_mask=mask, need_weights=False)[0]
        return x + self.c_proj(F.gelu(self.c_fc(self.ln_2(x)), approximate="tanh"))


class Gpt2(nn.Module):
    def __init__(self, vocabulary=96, context=16, width=32, heads=4, layers=2):
        super().__init__()
        self.wte = nn.Embedding(vocabulary, width)
        self.wpe = nn.Embedding(context, width)
        self.h = nn.ModuleList([Block(width, heads) for _ in range(layers)])
        self.ln_f = nn.LayerNorm(width)
        for table in (self.wte, self.wpe):
            nn.init.normal_(table.weight, std=0.02)

    def forward(self, tokens):
        n = tokens.shape[1]
        mask = torch.ones(n, n, dtype=torch.bool).triu(1)
        x = self.wte(tokens) + self.wpe(torch.arange(n))
        for block in self.h:
            x = block(x, mask)
        return self.ln_f(x) @ self.wte.weight.T


class Basic(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet18(nn.Module):
    def __init__(self, width=4, classes=10):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        stage = lambda i, o, s: nn.Sequential(Basic(i, o, s), Basic(o, o, 1))
        self.layer1 = stage(width, width, 1)
        self.layer2 = stage(width, 2 * width, 2)
        self.layer3 = stage(2 * width, 4 * width, 2)
        self.layer4 = stage(4 * width, 8 * width, 2)
        self.fc = nn.Linear(8 * width, classes)

    def forward(self, x):
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


class BiLstm(nn.Module):
    def __init__(self, vocabulary=60, width=16, hidden=24, classes=4):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.lstm = nn.LSTM(width, hidden, num_layers=2, bidirectional=True, batch_first=True)
        self.fc = nn.Linear(2 * hidden, classes)

    def forward(self, tokens, lengths):
        packed = nn.utils.rnn.pack_padded_sequence(self.embedding(tokens), lengths, batch_first=True, enforce_sorted=False)
        _, (h, _) = self.lstm(packed)
        return self.fc(torch.cat([h[-2], h[-1]], -1))


def record(name, model, inputs, loss_of, lr):
    """The initial state, the inputs, the logits in evaluation, and ten losses in training."""
    store = {f"state.{k}": v.clone() for k, v in model.state_dict().items()}
    store.update({f"in.{k}": v.clone() for k, v in inputs.items() if torch.is_tensor(v)})
    model = model.double()
    args = [v.double() if torch.is_tensor(v) and v.is_floating_point() else v for k, v in inputs.items() if k != "target"]
    with torch.no_grad():
        store["logits"] = model.eval()(*args).float()
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=lr, weight_decay=0.01)
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        loss = loss_of(model(*args), inputs["target"])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    store["losses"] = torch.tensor(losses, dtype=torch.float64)
    print(name, losses)
    save_file({k: v.contiguous() for k, v in store.items()}, f"{name}.safetensors")


def next_token(y, t):
    return F.cross_entropy(y.flatten(0, 1), t.flatten())


def gpt2_124m(directory):
    """GPT-2 at its full size (50257 tokens, 1024 places, width 768, 12 heads, 12 layers), on one text of 64 random tokens."""
    torch.manual_seed(0)
    tokens = torch.randint(0, 50257, (1, 65))
    record(os.path.join(directory, "gpt2-124m"), Gpt2(50257, 1024, 768, 12, 12),
           {"tokens": tokens[:, :-1], "target": tokens[:, 1:]}, next_token, 1e-4)


def small():
    torch.manual_seed(0)
    tokens = torch.randint(0, 96, (4, 17))
    record("gpt2", Gpt2(), {"tokens": tokens[:, :-1], "target": tokens[:, 1:]}, next_token, 1e-3)
    # 48 pixels leave the last batch norms 8·2·2 values. Four images of 32 would leave four values: then PyTorch's own losses in float32
    # and in float64 are 1.5e-2 apart after nine steps. Here they are 2e-7 apart.
    record("resnet18", ResNet18(), {"images": torch.randn(8, 3, 48, 48), "target": torch.randint(0, 10, (8,))},
           F.cross_entropy, 1e-3)
    record("bilstm", BiLstm(), {"tokens": torch.randint(0, 60, (6, 12)), "lengths": torch.tensor([12, 7, 3, 12, 1, 9]),
                                "target": torch.randint(0, 4, (6,))}, F.cross_entropy, 1e-2)


if sys.argv[1:2] == ["gpt2-124m"]:
    gpt2_124m(sys.argv[2])
else:
    small()
