"""How a recipe's global batch is shared: devices divide it, accumulation makes up the rest."""

from __future__ import annotations

from dataclasses import dataclass

from visavis.errors import RecipeError
from visavis.train.recipe import Recipe


@dataclass(frozen=True)
class BatchPlan:
    """`batch_size` images a step = `devices` · `accumulate` · `device_batch` images that a device has at once."""

    batch_size: int
    devices: int
    accumulate: int
    device_batch: int

    def __str__(self) -> str:
        return f"{self.device_batch} × {self.devices} devices × {self.accumulate} accumulated"


def plan_batch(recipe: Recipe, devices: int) -> BatchPlan:
    """Share `loop.batch_size`, the images of one optimizer step, over devices.

    A device takes its equal part at once, or where that is more than `loop.device_batch`, in parts of that many whose
    gradients are accumulated. With the pxk sampler every part holds whole identities.

    Raises:
        RecipeError: it cannot be divided; the nearest number that can is named.
    """
    whole, most = recipe.loop.batch_size, recipe.loop.device_batch
    unit = recipe.data.images_per_class if recipe.data.sampler == "pxk" else 1
    if whole % (unit * devices) or whole < 2 * devices:
        _refuse(whole, devices, unit)
    share = whole // devices
    if not most or most >= share:
        return BatchPlan(whole, devices, 1, share)
    if share % most or most % unit:
        fitting = [n for n in range(max(2, unit), share + 1) if share % n == 0 and n % unit == 0]
        nearest = min(fitting, key=lambda n: abs(n - most))
        raise RecipeError(
            f"loop.device_batch {most} does not divide a device's {share} images of the global batch of {whole}"
            f"{_in_identities(unit)}; type --loop.device_batch {nearest}"
        )
    return BatchPlan(whole, devices, share // most, most)


def _refuse(whole: int, devices: int, unit: int) -> None:
    step = unit * devices
    nearest = max(2 * devices, round(whole / step) * step)
    if unit > 1 and whole % unit:
        raise RecipeError(
            f"loop.batch_size must be a multiple of data.images_per_class for the pxk sampler, got {whole} and {unit}; "
            f"type --loop.batch_size {nearest}"
        )
    least = " (each needs at least 2)" if whole < 2 * devices else ""
    raise RecipeError(
        f"loop.batch_size {whole}, the images of one step, cannot be divided over {devices} devices{least}"
        f"{_in_identities(unit)}; type --loop.batch_size {nearest}, or start another number of processes"
    )


def _in_identities(unit: int) -> str:
    return f" in whole identities of {unit} images" if unit > 1 else ""
