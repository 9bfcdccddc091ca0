"""Which device an engine runs on: the one its config.pbtxt names, else the one Triton placed it on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from engine.errors import SettingsError


class DeviceChoice(StrEnum):
    """The parameter `device`; auto is cuda for an instance of KIND_GPU and for a TensorRT engine."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


@dataclass(frozen=True, slots=True)
class Device:
    """`gpu` is a GPU's index as CUDA counts them; None is the CPU."""

    gpu: int | None = None

    def __str__(self) -> str:
        return "cpu" if self.gpu is None else f"cuda:{self.gpu}"


def choose_device(choice: DeviceChoice, *, tensorrt: bool, placed: int | None) -> Device:
    """`placed` is the GPU that Triton gave the instance, None for KIND_CPU. Raises SettingsError for a
    TensorRT engine on a CPU.
    """
    if tensorrt and choice is DeviceChoice.CPU:
        problem = (
            "cpu, a TensorRT engine needs cuda; or build one for the CPU: make engines ENGINE=onnxruntime"
        )
        raise SettingsError("device", problem)
    if choice is DeviceChoice.CPU or (choice is DeviceChoice.AUTO and placed is None and not tensorrt):
        return Device()
    return Device(placed or 0)
