"""Small tasks of the kind `torch`, right and broken: named in `task.module` as `worlds.own_models:Lines`."""

from __future__ import annotations

from collections import OrderedDict
from itertools import count

import torch
from torch import Tensor, nn

from fedsim import Pool, TorchTask

CALLS = count()
"""What a task must not do: remember something between two calls."""


class Lines(TorchTask):
    """Three numbers, of which two sums are to be told; client k has 6 + 2 k examples of its own."""

    hidden: int = 5

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(3, self.hidden), nn.Tanh(), nn.Linear(self.hidden, 2))

    def data(self, client):
        return self.drawn(6 + 2 * client)

    def test(self):
        return self.drawn(40)

    def drawn(self, n):
        x = torch.randn(n, 3)
        return x, x @ torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, -1.0]]) + 0.1 * torch.randn(n, 2)

    def loss(self, model, batch) -> Tensor:
        x, y = batch
        return ((model(x) - y) ** 2).mean(1)

    def metrics(self, model, batch):
        x, y = batch
        return {"error": (model(x) - y).abs().mean(1), "largest": (model(x) - y).abs().max()}


class Mean(Lines):
    """The same, with one number a batch."""

    def loss(self, model, batch):
        return super().loss(model, batch).mean()


class Kept(Lines):
    """The same; every client keeps 3 further examples apart."""

    def held_out(self, client):
        return self.drawn(3)


class Sized(Lines):
    """The same; how many examples a client has is said without reading them."""

    def size(self, client):
        return 6 + 2 * client


class Pictures(TorchTask):
    """Pictures of 6 x 6 pixels in two classes, from a pool: convolutions, batch norm, dropout."""

    owned: bool = False
    labelled: bool = True
    n: int = 60

    def model(self):
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(), nn.Linear(64, 2)
        )

    def pool(self):
        label = torch.arange(self.n) % 2
        picture = torch.randn(self.n, 1, 6, 6) + label.view(-1, 1, 1, 1)
        owners = torch.arange(self.n) // 10 if self.owned else None
        samples = {"picture": picture, "label": label}
        return Pool(samples, labels=label if self.labelled else None, owners=owners)

    def loss(self, model, batch):
        return nn.functional.cross_entropy(model(batch["picture"]), batch["label"], reduction="none")

    def metrics(self, model, batch):
        return {"accuracy": (model(batch["picture"]).argmax(1) == batch["label"]).float()}


class Samples(Pictures):
    """The same as a map-style data set of pairs."""

    def pool(self):
        return Pool([(torch.full((1, 6, 6), float(i % 2)), i % 2) for i in range(self.n)])

    def loss(self, model, batch):
        return super().loss(model, {"picture": batch[0], "label": batch[1]})

    def metrics(self, model, batch):
        return {}


class Partly(Lines):
    """The first layer is frozen."""

    def model(self):
        network = super().model()
        network[0].requires_grad_(requires_grad=False)
        return network


class Recurrent(Lines):
    """Sequences first by time: examples of two clients lie side by side and cannot be told apart."""

    def model(self):
        return Turned()


class Turned(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(1, 4), nn.Linear(4, 2)

    def forward(self, x):
        by_time = self.up(torch.cat([x, x[:, :1]], 1).t()[..., None])  # (4, n, 4)
        return self.down(torch.tanh(by_time).mean(0))


# broken -------------------------------------------------------------------------------------------


class NoLoss(TorchTask):
    def model(self):
        return nn.Linear(3, 2)

    def data(self, client):
        return torch.ones(4, 3)


class NoData(TorchTask):
    def model(self):
        return nn.Linear(3, 2)

    def loss(self, model, batch):
        return model(batch).sum(1)


class OtherArguments(Lines):
    def loss(self, batch):
        return batch


class NotATask:
    """No TorchTask."""


class NoTensor(Lines):
    def loss(self, model, batch):
        return super().loss(model, batch).mean().item()


class Matrix(Lines):
    def loss(self, model, batch):
        x, y = batch
        return (model(x) - y) ** 2


class NoGradient(Lines):
    def loss(self, model, batch):
        return super().loss(model, batch).detach()


class NotFinite(Lines):
    def loss(self, model, batch):
        return super().loss(model, batch) / 0.0


class Nobody(Lines):
    def data(self, client):
        return self.drawn(0 if client == 2 else 6)


class One(Lines):
    def data(self, client):
        return self.drawn(1)


class Unequal(Lines):
    def data(self, client):
        return torch.randn(6, 3), torch.randn(5, 2)


class OtherShape(Lines):
    def data(self, client):
        return torch.randn(6, 3 + (client == 1)), torch.randn(6, 2)


class Words(Lines):
    def data(self, client):
        return "six words that are no examples"


class OtherModel(Lines):
    """Each call builds a wider model."""

    def model(self):
        width = 4 + next(CALLS)
        return nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, 2))


class Lazy(Lines):
    def model(self):
        return nn.Sequential(nn.Linear(3, 4), nn.LazyLinear(2))


class OtherNumbers(Lines):
    """The first weights come from somewhere else than torch's generator."""

    def model(self):
        network = super().model()
        with torch.no_grad():
            network[0].weight.add_(float(next(CALLS)))
        return network


ONE = nn.Linear(3, 2)


class OneModel(Lines):
    """Each call returns the same module."""

    def model(self):
        return ONE


class NoModel(Lines):
    def model(self):
        return [nn.Linear(3, 2)]


class NoLayers(Lines):
    """There is nothing that could carry an adapter."""

    def model(self):
        return Scaled()


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))

    def forward(self, x):
        return x[:, :2] * self.scale


class Raises(Lines):
    def loss(self, model, batch):
        return model(batch)  # the batch is a tuple


class Unused(Lines):
    """A layer that the loss does not go through."""

    def model(self):
        return Idle()


class Idle(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.idle = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x):
        return self.used(x)


class Half(Lines):
    def model(self):
        return super().model().to(torch.bfloat16)

    def loss(self, model, batch):
        x, y = batch
        return ((model(x.to(torch.bfloat16)) - y) ** 2).mean(1)

    def metrics(self, model, batch):
        return {}


class OddMetrics(Lines):
    def metrics(self, model, batch):
        return {"pairs": torch.zeros(3, 2)}


class TakenName(Lines):
    def metrics(self, model, batch):
        return {"loss": torch.zeros(())}


class Counting(Lines):
    """The frozen model counts its calls."""

    def model(self):
        return Counts()


class Counts(nn.Module):
    def __init__(self):
        super().__init__()
        self.map = nn.Linear(3, 2)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return self.map(x)


class Moves(Lines):
    """The loss moves a weight that is frozen, each time that it is computed with a gradient."""

    def loss(self, model, batch):
        if torch.is_grad_enabled():
            model[0].bias.data.add_(0.1)
        return super().loss(model, batch)


class Teacher(Lines):
    """Of a model that trains whole a part does not, and the loss moves it."""

    def model(self):
        return nn.ModuleDict({"student": super().model(), "teacher": nn.Linear(3, 2).requires_grad_(False)})

    def loss(self, model, batch):
        with torch.no_grad():
            model["teacher"].weight.mul_(0.9)
        return super().loss(model["student"], batch)

    def metrics(self, model, batch):
        return {}


class Nested(Lines):
    """Names of layers that end as others do: 0 is a layer, and 1.0 is none."""

    def model(self):
        return nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.Tanh(), nn.Linear(3, 2)))


class Twofold(Lines):
    """A name that is the end of another one, without a dot between."""

    def model(self):
        return nn.Sequential(OrderedDict(subhead=nn.Linear(3, 5), head=nn.Linear(5, 2)))


class Fickle(Lines):
    """The metrics of a long batch are others than those of a short one."""

    def metrics(self, model, batch):
        return {"many" if len(batch[0]) > 4 else "few": torch.zeros(())}


class Weightless(Lines):
    def model(self):
        return super().model().to("meta")


class Scattered(Lines):
    def data(self, client):
        x, y = super().data(client)
        return x.to_sparse(), y


class Quits(Lines):
    def loss(self, model, batch):
        raise SystemExit(3)


class Orphans(Lines):
    """Some examples of the pool have no owner."""

    def pool(self):
        examples = self.drawn(30)
        return Pool(examples, owners=[None, "ann", "bob"] * 10)


class Numbered(Lines):
    """Examples in a dict whose keys are numbers."""

    def data(self, client):
        return dict(enumerate(super().data(client)))


class Forgets(Lines):
    """Each call draws other examples."""

    def data(self, client):
        x = torch.randn(6 + 2 * client, 3)
        return x, x[:, :2] + next(CALLS)


class ReadsCompany(Lines):
    """An example's loss looks at the others in its batch."""

    def loss(self, model, batch):
        losses = super().loss(model, batch)
        return losses - losses.mean().detach() + losses.sum() * 0.5
