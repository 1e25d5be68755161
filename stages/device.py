"""Device and precision that this machine supports."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..cache.errors import CeflError

if TYPE_CHECKING:  # importing torch takes a second; workers of the openvino backend do without
    import torch


def resolve_device(device: str) -> torch.device:
    """Return the device, for 'auto' CUDA if there is one; raises CeflError if this machine does not have it.

    On a GPU fp32 is IEEE arithmetic from then on, in the whole process: TF32, which torch uses for convolutions by default, has
    the 10 bits of fp16 and would be recorded as fp32.
    """
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if "," in device:
        raise CeflError(
            f"--device {device}: only extract uses several devices at a time; give one, such as --device {device.split(',')[0]}"
        )
    try:
        resolved = torch.device(device)
    except RuntimeError:
        raise CeflError(f"--device {device}: unknown device; use cpu, cuda or cuda:1") from None
    if resolved.type not in ("cpu", "cuda"):
        raise CeflError(f"--device {device}: ceflpipe runs on cpu and cuda; use one of them")
    if resolved.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (resolved.index or 0) >= count:
            raise CeflError(f"--device {device}: this machine has {count} CUDA devices that torch can use; use cpu")
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
    return resolved


def may_have_gpu() -> bool:
    """Return False if this machine surely has no GPU that torch could use, without importing torch: no driver of one."""
    if sys.platform == "darwin":
        return False
    if sys.platform == "win32":
        return Path(os.environ.get("SYSTEMROOT", "C:\\Windows"), "System32", "nvcuda.dll").exists()
    return any(Path(file).exists() for file in ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")) or sys.platform != "linux"


def num_threads() -> int:
    """Return the threads of this worker from OMP_NUM_THREADS, which all libraries read; 0 for all cores."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdecimal() else 0


def resolve_devices(device: str) -> tuple[str, ...]:
    """Return the devices of an extraction: every visible GPU for ``cuda``, and for ``auto`` if there is one; those of a list such
    as ``cuda:0,cuda:2``; else the one.

    Raises CeflError as resolve_device does, and for a list of anything but different GPUs with their numbers.
    """
    import torch

    devices = [resolve_device(name.strip()) for name in device.split(",")]
    if len(devices) == 1 and devices[0].type == "cuda" and devices[0].index is None:
        return tuple(f"cuda:{number}" for number in range(torch.cuda.device_count()))
    names = list(map(str, devices))
    if len(names) > 1 and not (len(set(names)) == len(names) and all(name.startswith("cuda:") for name in names)):
        raise CeflError(
            f"--device {device}: a list names different GPUs by their numbers, as in --device cuda:0,cuda:2"
        )
    return tuple(names)


def gpu_models(devices: Sequence[str]) -> list[str]:
    """Return the different models of GPUs among the devices; each model rounds in its own way."""
    import torch

    return sorted({torch.cuda.get_device_name(device) for device in devices if device != "cpu"})


@contextmanager
def deterministic_algorithms(enabled: bool = True) -> Iterator[None]:
    """While entered and ``enabled``, torch takes only algorithms that give the same bytes every time; the settings that it had
    before are restored.

    Raises CeflError for an operation that has no such algorithm on its device. It changes nothing on processors, whose
    algorithms are of this kind.
    """
    if not enabled:
        yield
        return
    import torch

    cudnn, utils, workspace = torch.backends.cudnn, torch.utils.deterministic, "CUBLAS_WORKSPACE_CONFIG"
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    settings = cudnn.deterministic, cudnn.benchmark, utils.fill_uninitialized_memory  # pyright: ignore[reportAttributeAccessIssue]
    variable = os.environ.get(workspace)
    try:
        os.environ[workspace] = ":4096:8"  # read when a process first multiplies on a GPU
        torch.use_deterministic_algorithms(True)
        cudnn.deterministic, cudnn.benchmark, utils.fill_uninitialized_memory = True, False, False  # pyright: ignore[reportAttributeAccessIssue]
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        raise CeflError(f"--deterministic: {str(error).split(',')[0]}; leave it out, or use --device cpu") from None
    finally:
        cudnn.deterministic, cudnn.benchmark, utils.fill_uninitialized_memory = settings  # pyright: ignore[reportAttributeAccessIssue]
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        if variable is None:
            del os.environ[workspace]
        else:
            os.environ[workspace] = variable


def uses_tf32(device: torch.device) -> bool:
    """Return whether torch computes fp32 on this device with TF32's 10 bits."""
    import torch

    return device.type == "cuda" and bool(torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32)


def has_native_precision(precision: str, device: torch.device) -> bool:
    """Return whether a device computes a precision in hardware; others are emulated, which is slower."""
    import torch

    if precision == "fp32" or (precision == "fp16" and device.type == "cuda"):
        return True
    if precision == "bf16":
        return torch.cuda.is_bf16_supported(including_emulation=False) if device.type == "cuda" else cpu_has_bf16()
    return False


def resolve_precision(precision: str, device: torch.device) -> str:
    """Return fp32, bf16 or fp16; 'auto' is bf16 or fp16 if the device computes it natively, else fp32."""
    if precision not in ("auto", "fp32", "bf16", "fp16"):
        raise CeflError(f"precision {precision}: unknown; use auto, fp32, bf16 or fp16")
    if precision != "auto":
        return precision
    if has_native_precision("bf16", device):
        return "bf16"
    return "fp16" if device.type == "cuda" else "fp32"


def cpu_has_bf16() -> bool:
    """Return whether the processor multiplies bfloat16 in hardware (AVX512-BF16, AMX, or Arm BF16)."""
    if not bf16_allowed():
        return False
    import torch

    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported", "_is_arm_bf16_supported")
    return any(bool(probe()) for name in probes if (probe := getattr(torch.cpu, name, None)))


def bf16_allowed() -> bool:
    """Return whether ONEDNN_MAX_CPU_ISA allows oneDNN, which torch multiplies with, to use bfloat16 instructions.

    Without them bfloat16 is emulated and slow. Tests set the variable to run as on an AVX2 processor.
    """
    limit = (os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or "ALL").upper()
    return limit in ("ALL", "DEFAULT") or any(name in limit for name in ("BF16", "FP16", "AMX", "AVX10"))


def autocast(device: torch.device, precision: str) -> torch.autocast:
    import torch

    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=precision != "fp32")
