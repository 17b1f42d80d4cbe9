"""Fields of `task: {kind: images}`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fedsim.component import Config
from fedsim.config.fields import Count, CountOrZero
from fedsim.cost.charge_images import ChargeImages
from fedsim.cost.quantised import Quantise, Word, check_plain, quantise_of
from fedsim.errors import invalid
from fedsim.tasks._base import TaskComponent
from fedsim.tasks._images.extractor import Kind
from fedsim.tasks._sources import HELD_OUT, Holdout, check_data, spelled_out
from fedsim.tasks.partition import Iid, Partition


class FeaturesConfig(Config):
    """What looks at images for the Frechet and the kernel distance.

    Attributes:
        kind: `digits-cnn` (ships), `classifier` (a file of your own), `efficientnet-lite0` (the extra
            `metrics`), `inception`; `auto`: `digits-cnn` for the built-in digits, a classifier if one is given,
            else none: loss only.
        weights: Inception's, made by `scripts/inception_weights.py`.
        classifier: a small classifier's file, which also counts the classes among the samples, whatever `kind`.
        resize: pixels of a side that the extractor sees; by default 64 (EfficientNet), 299 (Inception: FID).
        also: further extractors that look at the same samples, each at its own size: an order of models on which two
            of them agree rests on neither alone.
    """

    kind: Literal["auto", "none", "digits-cnn", "classifier", "efficientnet-lite0", "inception"] = "auto"
    weights: str | None = None
    classifier: str | None = None
    resize: Count | None = None
    also: tuple[Kind, ...] = ()


class ImagesSettings(TaskComponent):
    """Which model, which images, who has them, and how samples are looked at.

    Attributes:
        model: `builtin`, a folder of diffusers (a model, or a pipeline with `unet/` or `transformer/`) with
            its noise schedule, or a hub name.
        data: `builtin`; a folder of images, one folder a class, with `train` and `test` if there are any; a
            parquet file, or a folder of *train* and *test* ones; a table of paths, which start at its own folder, and
            labels; or the name of a hub data set (parquet). Without a test split the validation images are the
            test, without any of both one in ten images of each class is held out. Images are as a viewer shows
            them (`fedsim.tasks._images.pixels`), what is transparent on white.
        data_config, data_revision: of a hub data set.
        image_column, label_column: of a table; by default `img`, `image`, ... and `label`, ...
        client_column, time_column: of a table: who made an image, for the partition `natural`, and when, as numbers or dates.
        classes: the classes that clients have, by number (`fedsim.tasks._images.labels`); all without it, of the built-in digits 5 to 9.
        share: which part of each class's training images clients have, from and to: [0.5, 1] leaves the first
            half to whoever pretrained on it.
        partition: who has which images; see `fedsim.tasks.partition`.
        holdout: share of each client's images it does not train on, at least one; `last` is short for 0.1 with
            `holdout_from: last`.
        holdout_from: `drawn`: any of a client's images; `last`: its last ones in time (`time_column`, else the data's order,
            in which a client of several owners holds out the last of each).
        prediction: what the model predicts; `auto`: as its schedule says.
        conditional: whether a model that can be told the class is told it.
        grid: timesteps, in the middle of equal parts, at which each evaluated image's loss is taken.
        samples: images drawn for the distances, the same number at every version, at least 2; 0: none.
        sampling_steps: steps of DDIM.
        features: what looks at them.
        quantise: how the frozen weights of the linear layers are held: `none`, `int8`, `nf4`, or a block, whose `modules`
            may name convolutions, too (`fedsim.cost.quantised`).
        charge_as: the model that the clock charges instead of the one that trains.
    """

    model: str = "builtin"
    data: str = "builtin"
    data_config: str | None = None
    data_revision: str | None = None
    image_column: str | None = None
    label_column: str | None = None
    client_column: str | None = None
    time_column: str | None = None
    classes: tuple[CountOrZero, ...] | None = None
    share: tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0, le=1)]] = (0.0, 1.0)
    partition: Partition = Iid()
    holdout: Holdout = HELD_OUT
    holdout_from: Literal["drawn", "last"] = "drawn"
    prediction: Literal["auto", "epsilon", "v_prediction", "sample"] = "auto"
    conditional: bool = True
    grid: Count = 8
    samples: CountOrZero = 500
    sampling_steps: Count = 25
    features: FeaturesConfig = FeaturesConfig()
    quantise: Word | Quantise = "none"
    charge_as: ChargeImages | None = None

    @model_validator(mode="before")
    @classmethod
    def _last(cls, values: object) -> object:
        return spelled_out(values)

    @model_validator(mode="after")
    def _some_images(self) -> ImagesSettings:
        if self.share[0] >= self.share[1]:
            raise invalid("`share` is empty", fix="give from < to, as in share: [0.5, 1]")
        if self.classes is not None and len(set(self.classes)) != len(self.classes):
            raise invalid("`classes` names one twice", fix="name each class once")
        if self.samples == 1:
            raise invalid("`samples` of one image have no spread", fix="draw at least 2, or 0 for none")
        named = (self.image_column, self.label_column, self.client_column, self.time_column)
        check_data(self.model, self.data, named)
        return self

    @model_validator(mode="after")
    def _quantised_as_charged(self) -> ImagesSettings:
        how = self.quantised()
        if how is not None and self.charge_as is not None and self.charge_as.quantise is None:
            check_plain(self.charge_as.weight_bytes, how, "charge_as.weight_bytes")
        return self

    def quantised(self) -> Quantise | None:
        """Return how the frozen weights are held where they are quantised."""
        return quantise_of(self.quantise)

    def sources(self) -> dict[str, str]:
        """Return the model and the data."""
        return {"model": self.model, "data": self.data}
