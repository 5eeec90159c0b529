"""Machines to plan for, as data: what the makers state, with the sources of each figure; and this machine, measured."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from glassformer.errors import InputError, did_you_mean


@dataclass(frozen=True)
class Machine:
    """One device and how it is joined to others.

    `memory` bytes, of which `reserve` are left to the driver, the libraries' buffers and fragmentation (our assumption,
    not the maker's); `flops` a second by precision, dense products; `bandwidth` bytes a second to memory. `node`
    devices are joined by `inside` bytes a second each way and device, nodes by `between`. `reached` is the share of
    `flops["bf16"]` that published trainings of large models got, `watts` the most that the maker states for a device,
    and `device` what torch calls its type.
    """

    name: str
    memory: float
    reserve: float
    flops: dict[str, float]
    bandwidth: float
    node: int
    inside: float
    between: float
    sources: tuple[str, ...]
    watts: float | None = None
    reached: tuple[float, float] | None = None
    device: str = "cuda"

    @property
    def usable(self) -> float:
        """Bytes of a device that a plan may fill."""
        return self.memory - self.reserve


MACHINES = {
    "h100": Machine(
        name="NVIDIA H100 80GB SXM",
        memory=80e9,
        reserve=4e9,
        # Without sparsity, tensor cores; fp32 is the one of plain fp32, not TF32.
        flops={"bf16": 989e12, "fp32": 67e12},
        bandwidth=3.35e12,
        node=8,
        inside=450e9,  # 900 GB/s of NVLink, both ways together
        between=50e9,  # one ConnectX-7 of 400 Gb/s a device
        sources=(
            "NVIDIA H100 Tensor Core GPU datasheet (SXM5): 989 TFLOP/s bf16 dense, 67 fp32, 3.35 TB/s, 900 GB/s NVLink",
            "NVIDIA DGX H100 datasheet: 8 devices a node, one 400 Gb/s InfiniBand port each",
            "Dubey et al. 2024 (Llama 3), table 4: 38 to 43 % of the bf16 peak on 8,192 and 16,384 H100",
        ),
        watts=700.0,
        reached=(0.38, 0.43),
    ),
    "a100": Machine(
        name="NVIDIA A100 80GB SXM",
        memory=80e9,
        reserve=4e9,
        flops={"bf16": 312e12, "fp32": 19.5e12},
        bandwidth=2.039e12,
        node=8,
        inside=300e9,
        between=25e9,
        sources=(
            "NVIDIA A100 Tensor Core GPU datasheet (80GB SXM): 312 TFLOP/s bf16 dense, 19.5 fp32, 2,039 GB/s, 600 GB/s "
            "NVLink",
            "NVIDIA DGX A100 datasheet: 8 devices a node, one 200 Gb/s InfiniBand port each",
            "Narayanan et al. 2021 (Megatron-LM), table 1: 44 to 52 % of the peak for 1.7 to 1,008 billion parameters",
        ),
        watts=400.0,
        reached=(0.44, 0.52),
    ),
}

INTERCONNECTS = {
    "infiniband-ndr": 50e9,
    "infiniband-hdr": 25e9,
    "ethernet-100g": 12.5e9,
    "ethernet-25g": 3.125e9,
    "ethernet-10g": 1.25e9,
}
"""Bytes a second each way that a device has to other nodes, where each has a port of its own: the line's rate."""


def machine(name: str, memory: float | None = None, interconnect: str | None = None) -> Machine:
    """The machine of that name, "cpu" for this one, with another memory (bytes) or network between nodes.

    Raises `InputError` for unknown names.
    """
    if name not in (*MACHINES, "cpu"):
        known = [*MACHINES, "cpu"]
        raise InputError(f"'{name}' is no known machine.{did_you_mean(name, known)} Known: {', '.join(known)}.")
    found = this_machine() if name == "cpu" else MACHINES[name]
    if memory is not None:
        if memory <= found.reserve:
            raise InputError(
                f"--memory must be more than the {found.reserve / 1e9:g} GB that driver and libraries take, "
                f"got {memory / 1e9:g} GB."
            )
        found = replace(found, memory=memory)
    return found if interconnect is None else replace(found, between=link(interconnect))


def link(text: str) -> float:
    """Bytes a second of a network: a name of `INTERCONNECTS`, or such as "50GB/s" or "400Gb/s"."""
    if text in INTERCONNECTS:
        return INTERCONNECTS[text]
    for ending, scale in (("GB/s", 1e9), ("Gb/s", 1e9 / 8)):
        number = text.removesuffix(ending).strip()
        if text.endswith(ending) and number.replace(".", "", 1).isdigit() and float(number) > 0:
            return float(number) * scale
    raise InputError(
        f"--interconnect must be one of {', '.join(INTERCONNECTS)}, or bytes or bits a second such as 50GB/s or "
        f"400Gb/s, got '{text}'.{did_you_mean(text, INTERCONNECTS)}"
    )


def this_machine() -> Machine:
    """This machine's processor, by what `glassformer machine` measured, measured now where it was not.

    Several processes would share it: "devices" of one node, joined through memory.
    """
    import torch

    from glassformer.training.machine import known_limits, machine_limits
    from glassformer.training.plan import PROCESS

    threads = torch.get_num_threads()
    limits = known_limits(threads) or machine_limits(threads)
    bandwidth = 1e9 * limits["read_gb_per_s"]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 8 * 2**30
    return Machine(
        name=f"{limits['processor']}, {threads} threads",
        memory=float(memory),
        reserve=PROCESS,
        flops={kind: 1e9 * limits[f"{kind}_gflops"] for kind in ("fp32", "bf16")},
        bandwidth=bandwidth,
        node=1 << 20,
        inside=bandwidth / 2,
        between=bandwidth / 2,
        sources=("measured here: glassformer machine",),
        device="cpu",
    )
