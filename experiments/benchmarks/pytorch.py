"""The method in PyTorch, written plainly: what the library is measured against.

The published algorithms as one would write them in eager PyTorch, with the same arithmetic as the
library's: log-domain Sinkhorn with autograd through its loop, ResNet-32 with shortcuts without
parameters, and the step of stage 2 that shares one forward pass between the virtual step and the
last.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

CHECK_EVERY = 10


class Stop(NamedTuple):
    """When the Sinkhorn loop ends: by the sum of the changes of a potential, or the marginals."""

    change: float = 0.0
    marginal: float = 0.0


LOOSE = Stop(change=0.1)
CONVERGED = Stop(marginal=1e-5)


def ot_loss(a: Tensor, cost: Tensor, stop: Stop, epsilon: float = 0.1, most: int = 200) -> Tensor:
    """`<C, T>` of the entropic plan, differentiable through the iterations."""
    b = torch.full((cost.shape[1],), 1 / cost.shape[1], device=cost.device)
    log_a, log_b = a.log(), b.log()
    f, g = torch.zeros_like(a), torch.zeros_like(b)
    for iteration in range(1, most + 1):
        before = f
        f = epsilon * (log_a - torch.logsumexp((g[None, :] - cost) / epsilon, 1))
        g = epsilon * (log_b - torch.logsumexp((f[:, None] - cost) / epsilon, 0))
        if stop.change and (f - before).abs().sum().item() < stop.change:
            break
        if stop.marginal and iteration % CHECK_EVERY == 0:
            with torch.no_grad():
                plan = torch.exp((f[:, None] + g[None, :] - cost) / epsilon)
                if ((plan.sum(1) - a).abs().sum()).item() < stop.marginal:
                    break
    plan = torch.exp((f[:, None] + g[None, :] - cost) / epsilon)
    return (plan * cost).sum()


def combined_cost(z: Tensor, labels: Tensor, atoms: Tensor, num_classes: int) -> Tensor:
    """Cosine distance of features plus one where labels differ."""
    cosine = F.normalize(z, dim=1) @ F.normalize(atoms, dim=1).T
    differ = labels[:, None] != torch.arange(num_classes, device=z.device)[None, :]
    return 1 - cosine + differ


class Block(nn.Module):
    """Two convolutions and a shortcut without parameters."""

    def __init__(self, before: int, after: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        self.stride, self.pad = stride, (after - before) // 2

    def forward(self, x: Tensor) -> Tensor:
        """`[b c h w]` to `[b c2 h2 w2]`."""
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        if self.pad:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.pad, self.pad))
        return F.relu(x + y)


class ResNet(nn.Module):
    """ResNet-32 of CIFAR: images `[b 3 32 32]` to features `[b 64]` and logits `[b k]`."""

    def __init__(self, num_classes: int, depth: int = 32):
        super().__init__()
        blocks, width = [], 16
        for stage in range(3):
            for number in range((depth - 2) // 6):
                after = 16 * 2**stage
                blocks.append(Block(width, after, 2 if stage and not number else 1))
                width = after
        stem = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.backbone = nn.Sequential(stem, nn.BatchNorm2d(16), nn.ReLU(), *blocks)
        self.head = nn.Linear(width, num_classes)

    def features(self, x: Tensor) -> Tensor:
        """Images to features."""
        return self.backbone(x).mean((2, 3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images to features and logits."""
        z = self.features(x)
        return z, self.head(z)


def crop_and_flip(images: Tensor, padding: int = 4) -> Tensor:
    """A random crop and mirroring of each image of a batch `[b 3 h w]`, standardised."""
    size, side = images.shape[0], images.shape[-1]
    padded = F.pad(images.float() / 255, (padding,) * 4, mode="reflect")
    device = images.device
    offsets = torch.randint(0, 2 * padding + 1, (2, size, 1), device=device)
    steps = torch.arange(side, device=device)[None, :]
    rows, columns = offsets[0] + steps, offsets[1] + steps
    mirrored = torch.rand(size, 1, device=device) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    batch = torch.arange(size, device=device)[:, None, None]
    crops = padded[batch, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    return ((crops - 0.48) / 0.25).contiguous()


def prototypes(z: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Class means of features."""
    sums = torch.zeros(num_classes, z.shape[1], device=z.device).index_add_(0, labels, z)
    return sums / torch.bincount(labels, minlength=num_classes)[:, None]


def learn_weights(values: Tensor, cost: Tensor, rate: float, stop: Stop) -> Tensor:
    """A step of the batch's weights on the OT loss, on the simplex of the batch."""
    total = values.sum()
    mass = (values / total).requires_grad_()
    (gradient,) = torch.autograd.grad(ot_loss(mass / mass.sum(), cost, stop), mass)
    stepped = (mass - rate * gradient).clamp(min=0).detach()
    return stepped / stepped.sum() * total


class Stage2:
    """Algorithm 1 on the whole network, or on the head over a frozen backbone or kept features."""

    def __init__(self, network: ResNet, num_classes: int, head_only: bool, given_features: bool):
        self.network, self.num_classes = network, num_classes
        self.head_only, self.given_features = head_only, given_features
        network.train(not head_only)
        trained = network.head if head_only else network
        self.optimizer = torch.optim.SGD(trained.parameters(), 2e-5, 0.9, weight_decay=5e-4)

    def step(self, images: Tensor, labels: Tensor, values: Tensor, meta: tuple, stop: Stop):
        """One step; returns the batch's new weights."""
        network = self.network
        atoms_of, atom_labels = meta
        if self.head_only:
            with torch.no_grad():
                z = images if self.given_features else network.features(images)
            atoms = atoms_of  # Features, which a frozen backbone gives once.
            losses = F.cross_entropy(network.head(z), labels, reduction="none")
        else:
            z, logits = network(images)
            losses = F.cross_entropy(logits, labels, reduction="none")
            z, atoms = self._virtual_features(losses, values, images, atoms_of)
        atoms = prototypes(atoms, atom_labels, self.num_classes)
        cost = combined_cost(z, labels, atoms, self.num_classes)
        values = learn_weights(values, cost, 1e-3, stop)
        self.optimizer.zero_grad()
        (losses * values / values.sum()).sum().backward()
        self.optimizer.step()
        return values

    def _virtual_features(self, losses, values, images, meta_images):
        network = self.network
        parameters = dict(network.named_parameters())
        weighted = (losses * values / values.sum()).sum()
        gradients = torch.autograd.grad(weighted, list(parameters.values()), retain_graph=True)
        with torch.no_grad():
            virtual = {
                name: p - 2e-5 * g
                for (name, p), g in zip(parameters.items(), gradients, strict=True)
            }
            network.eval()
            state = {**virtual, **dict(network.named_buffers())}
            z, atoms = (functional_call(network, state, (x,))[0] for x in (images, meta_images))
            network.train()
        return z, atoms
