"""`task: {kind: images}`: image generation with a diffusion model of diffusers, on any images.

The way from a configuration to a task: read, resize, deal the images to clients. Weights are not loaded here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from fedsim.cost.declared import Charge
from fedsim.jobs import TaskContext
from fedsim.tasks._images.settings import ImagesSettings

if TYPE_CHECKING:
    from fedsim.tasks._images.task import ImagesTask


class Images(ImagesSettings):
    """Image generation by denoising diffusion; its fields are those of `ImagesSettings`."""

    worker_modules: ClassVar[tuple[str, ...]] = ("fedsim.training.diffusion.denoising", "diffusers.models")
    practises: ClassVar[bool] = True
    kind: Literal["images"] = "images"

    def build(self, context: TaskContext) -> ImagesTask:
        """Read and split the images; weights are not loaded.

        Raises:
            DataError: images, model or extractor missing or unusable, or too few images for so many clients.
            ExperimentError: `lora.targets` names no layer of the model.
        """
        from fedsim.tasks._images.build import prepare

        return prepare(self, context)

    def charge(self, *, full: bool) -> Charge | None:
        """Return what `charge_as` declares: a pixel is a token, an image a sequence."""
        if self.charge_as is None:
            return None
        from fedsim.training.diffusion.cost import declared

        shape = declared(self.charge_as, full=full, quantise=self.quantised())
        images = self.charge_as.images_per_visit
        return Charge(shape, None if images is None else images * shape.sequence)
