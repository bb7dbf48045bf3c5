"""Dense peaks by the names that drivers give; a sibling of another peak is nobody's."""

from __future__ import annotations

import re

import pytest

from workbench.core.gpus import gpus, peak_flops


@pytest.mark.parametrize(
    ("device", "peak"),
    [
        ("NVIDIA A100-SXM4-80GB", 312e12), ("NVIDIA A100-PCIE-40GB", 312e12),
        ("NVIDIA H100 80GB HBM3", 989.4e12), ("NVIDIA H200", 989.4e12),
        ("NVIDIA GeForce RTX 3090", 71e12), ("NVIDIA L4", 121e12), ("Tesla T4", 65e12),
        ("NVIDIA H100 PCIe", None), ("NVIDIA H100 NVL", None), ("NVIDIA H200 NVL", None),
        ("NVIDIA GH200 480GB", None), ("NVIDIA GeForce RTX 3090 Ti", None), ("NVIDIA L40S", None),
        ("NVIDIA T400", None), ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None), ("cpu", None),
    ],
)  # fmt: skip
def test_a_device_has_the_peak_of_its_own_kind_or_none(device: str, peak: float | None) -> None:
    assert peak_flops(device) == peak


def test_every_gpu_knows_its_own_name() -> None:
    for name, gpu in gpus().items():
        assert re.fullmatch(gpu.names, name)
        assert peak_flops(name) == gpu.peak_flops
