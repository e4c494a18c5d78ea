"""What a process runs on, under mmengine's names for it."""

from __future__ import annotations

import sys

from treenail.adapters.logging import collect_environment


def collect_env() -> dict[str, object]:
    """Return what this process runs on, by the names that mmengine's function has for it.

    `treenail.adapters.logging.collect_environment` tells more, as plain data.
    """
    import torch

    found = collect_environment()
    packages = found["packages"] if isinstance(found["packages"], dict) else {}
    gpus = found["gpus"] if isinstance(found["gpus"], list) else []
    told: dict[str, object] = {
        "sys.platform": sys.platform,
        "Python": sys.version.replace("\n", ""),
        "CUDA available": torch.cuda.is_available(),
    }
    for name in dict.fromkeys(gpus):
        told["GPU " + ",".join(str(index) for index, each in enumerate(gpus) if each == name)] = name
    told["PyTorch"] = found["torch"]
    told["PyTorch compiling details"] = torch.__config__.show()
    # OpenCV comes in packages of several names: opencv-python, opencv-python-headless …
    for label, prefix in (("TorchVision", "torchvision"), ("OpenCV", "opencv"), ("MMEngine", "mmengine")):
        versions = [version for name, version in packages.items() if name.lower().startswith(prefix)]
        told |= {label: versions[0]} if versions else {}
    return {**told, "Treenail": packages.get("treenail", "unknown")}


__all__ = ["collect_env"]
