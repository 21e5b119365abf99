"""What a figure was measured on."""

import datetime
import os
import platform
from pathlib import Path
from typing import Any

import torch


def machine(device: torch.device | None = None) -> dict[str, Any]:
    """Return the date, the processor or accelerator, threads and versions."""
    name = _processor()
    if device is not None and device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    return {
        "date": datetime.date.today().isoformat(),
        "device": name,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    found = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(found, platform.machine())
