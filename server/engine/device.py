"""Which device an engine runs on: the one its config.pbtxt names, else the one Triton placed it on."""

from __future__ import annotations

from dataclasses import dataclass

from engine.contract import DeviceChoice
from engine.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Device:
    """`gpu` is a GPU's index as CUDA counts them; None is the CPU."""

    gpu: int | None = None

    def __str__(self) -> str:
        return "cpu" if self.gpu is None else f"cuda:{self.gpu}"


def choose_device(choice: DeviceChoice, *, needs_gpu: str | None, placed: int | None) -> Device:
    """`placed` is the GPU that Triton gave the instance, None for KIND_CPU; `needs_gpu` is the part of the
    engine that no CPU runs, if any. Raises SettingsError for such an engine on a CPU.
    """
    if needs_gpu and choice is DeviceChoice.CPU:
        raise SettingsError("device", f"cpu, {needs_gpu} needs cuda; or build the engine in int8 for a CPU")
    if choice is DeviceChoice.CPU or (choice is DeviceChoice.AUTO and placed is None and not needs_gpu):
        return Device()
    return Device(placed or 0)
