"""Which values upstream's code accepts, and which keys do nothing on a hypervisor.

Read from upstream at 3.2.0 and 4.1.0: src/runtime/pkg/katautils/config.go and src/runtime/virtcontainers for Go,
src/libs/kata-types/src/config for Rust. Only what certainly cannot work is refused here; Kata judges the rest.
"""

from collections.abc import Mapping
from typing import Any

from agent.kata.furtherkeys import names
from agent.kata.handlers import ResolvedHandler, version_tuple
from agent.kata.tomlwrite import Value, value

UINT32_MAX = (1 << 32) - 1
_INT64_MAX = (1 << 63) - 1

_WIDE = {"default_maxmemory", "memory_offset", "create_container_timeout"}
"""Keys of 64 bits; so are the rate limiters. All other whole numbers are decoded into 32 bits."""

_ONLY_ELSEWHERE = names(
    """block_device_aio block_device_cache_noflush cpu_features disable_block_device_use disable_guest_selinux
    disable_image_nvdimm disable_vhost_net enable_guest_swap enable_iommu enable_iommu_platform enable_iothreads
    enable_numa enable_vhost_user_store enable_virtio_mem extra_monitor_socket file_mem_backend firmware_volume
    guest_memory_dump_paging guest_memory_dump_path hypervisor_loglevel indep_iothreads jailer_path
    machine_accelerators machine_type memory_offset msize_9p numa_mapping pcie_root_port pcie_switch_port pflashes
    rx_rate_limiter_max_rate shared_fs tx_rate_limiter_max_rate use_legacy_serial valid_jailer_paths
    valid_virtio_fs_daemon_paths vhost_user_reconnect_timeout_sec vhost_user_store_path virtio_fs_cache
    virtio_fs_cache_size virtio_fs_daemon virtio_fs_extra_args virtio_fs_queue_size"""
)
"""Keys of some hypervisor: where a base file does not show them they decode, and do nothing."""

_SAME_EVERYWHERE: dict[str, tuple[str, ...]] = {
    "agent_name": ("kata",),
    "block_device_aio": ("io_uring", "native", "threads"),
    "emptydir_mode": ("shared-fs", "block-encrypted", "block-plain"),
    "extra_monitor_socket": ("", "hmp", "qmp", "qmp-pretty"),
    "hugepage_type": ("hugetlbfs", "thp"),
    "log_level": ("trace", "debug", "info", "warn", "error", "critical"),
    "name": ("virt_container",),
    "rootfs_type": ("ext4", "xfs", "erofs"),
    "vfio_mode": ("guest-kernel", "vfio"),
}
_BLOCK_DRIVERS: dict[tuple[str, str], tuple[str, ...]] = {
    ("go", "clh"): ("virtio-blk",),
    ("go", "qemu"): ("virtio-scsi", "virtio-blk", "nvdimm", "virtio-blk-ccw"),
    ("go", "firecracker"): ("virtio-mmio",),
    ("rust", "clh"): ("virtio-blk-pci",),
    ("rust", "qemu"): ("virtio-scsi", "virtio-blk-pci", "virtio-blk-ccw", "virtio-pmem"),
    ("rust", "dragonball"): ("virtio-blk-pci", "virtio-blk-mmio", "virtio-pmem"),
}
_ROOTFS_DRIVERS: dict[str, tuple[str, ...]] = {
    "clh": ("virtio-blk-pci", "virtio-pmem"),
    "qemu": ("virtio-pmem", "virtio-blk-pci", "virtio-blk-ccw", "virtio-scsi"),
    "dragonball": ("virtio-blk-pci", "virtio-blk-mmio", "virtio-pmem"),
}
_SHARED_FS: dict[str, tuple[str, ...]] = {
    "clh": ("virtio-fs", "virtio-fs-nydus", "none"),
    "qemu": ("virtio-fs", "virtio-fs-nydus", "none"),
    "dragonball": ("inline-virtio-fs", "virtio-fs", "none"),
}


def without_effect(handler: ResolvedHandler, key: str) -> str:
    """Says so when a key that the hypervisor's base file does not know is another hypervisor's; else empty."""
    return f"has no effect on {handler.kind.title}: remove it" if key in _ONLY_ELSEWHERE else ""


def choices(handler: ResolvedHandler, key: str) -> tuple[str, ...]:
    """The strings that a key may hold, the usual one first; empty when any may be right."""
    runtime, hypervisor = handler.runtime, handler.hypervisor
    match key:
        case "hypervisor_name":
            return (hypervisor,)
        case "internetworking_model":
            newer = runtime == "rust" and version_tuple(handler.release_version) >= (4, 1, 0)
            return ("tcfilter", "macvtap", "none", *(["l3forwarding"] if newer else []))
        case "block_device_driver":
            return _BLOCK_DRIVERS[runtime, hypervisor]
        case "vm_rootfs_driver":
            return _ROOTFS_DRIVERS[hypervisor]
        case "shared_fs":
            more = ["virtio-9p"] if (runtime, hypervisor) == ("go", "qemu") else []
            return (*_SHARED_FS.get(hypervisor, ()), *more)
        case "virtio_fs_cache":
            # "none" is an old name of "never".
            return ("auto", "always", "never", *(["metadata"] if runtime == "go" else []))
        case "cold_plug_vfio" | "hot_plug_vfio":
            return ("no-port", "root-port", *(["switch-port", "bridge-port"] if hypervisor != "clh" else []))
        case _:
            return _SAME_EVERYWHERE.get(key, ())


def wrong(handler: ResolvedHandler, table: str, key: str, item: Value) -> str:
    """What is wrong with a value of the right type, and the right one; empty when nothing is known against it."""
    if isinstance(item, str) and (known := choices(handler, key)):
        return "" if item in known else _not_among(handler, table, key, known)
    if isinstance(item, bool):
        return _wrong_switch(handler, key, on=item) if table.startswith("hypervisor") else ""
    if isinstance(item, int | float):
        return _wrong_number(handler, key, item)
    return ""


def _not_among(handler: ResolvedHandler, table: str, key: str, known: tuple[str, ...]) -> str:
    words = [value(word) for word in known]
    listed = words[0] if len(words) == 1 else f"one of {', '.join(words)}"
    where = f" on {handler.kind.title}" if table.startswith("hypervisor") else ""
    why = ""
    if (table, key) == ("runtime", "name"):
        why = " (it is the kind of runtime; the handler's name stands in the container runtime's configuration)"
    return f"{handler.runtime_title} wants {listed}{where}{why}"


def _wrong_switch(handler: ResolvedHandler, key: str, *, on: bool) -> str:
    if not on:
        return ""
    match handler.hypervisor, key:
        case "clh", "enable_iommu":
            # Go: newClhHypervisorConfig does not take it over, an annotation sets it; Rust: nothing of CH reads it.
            how = f' (pods can ask for it: handlers.{handler.name}.annotations = ["enable_iommu"])'
            return "has no effect on Cloud Hypervisor: remove it" + (how if handler.runtime == "go" else "")
        case "dragonball", "rootless" | "enable_iommu" | "enable_iommu_platform" | "enable_iothreads":
            return "Dragonball does not support it: remove it"
        case "qemu", "enable_guest_swap" if handler.runtime == "rust":
            return "the Rust runtime does not support it on QEMU: remove it"
        case _:
            return ""


_BOUNDS = {"default_bridges": 5, "hypervisor_loglevel": 3, "pcie_root_port": 16, "pcie_switch_port": 16}


def _least_memory(handler: ResolvedHandler) -> int:
    # Go takes 2048 MiB, without a word, for anything below 256 (vc.MinHypervisorMemory); Rust refuses below 64.
    return 256 if handler.runtime == "go" else 64


def _wrong_number(handler: ResolvedHandler, key: str, item: float) -> str:
    wide = key in _WIDE or "rate_limiter" in key
    most = _INT64_MAX if wide else UINT32_MAX
    if key == "default_vcpus" and item < 0:
        return "" if item == -1 else "write the number of CPUs, or -1 for as many as the node has"
    if item < 0:
        return "must not be negative"
    if item > most:
        return f"is too large: at most {most}"
    match key:
        case "default_memory" if item < _least_memory(handler):
            return f"is too little: {handler.runtime_title} wants at least {_least_memory(handler)} (MiB)"
        case "default_bridges" if handler.hypervisor == "dragonball" and item > 0:
            return "Dragonball has no PCI bridges: write 0"
        case "guest_swap_size_percent" | "dial_timeout_ms" | "reconnect_timeout_ms" if item == 0:
            return "must not be 0"
        case "block_device_logical_sector_size" | "block_device_physical_sector_size" if item and not _sector(item):
            return "must be 0, or a power of two from 512 to 65536"
        case _:
            bound = _BOUNDS.get(key)
            return f"is too high: at most {bound}" if bound is not None and item > bound else ""


def _sector(size: float) -> bool:
    return size in {1 << bits for bits in range(9, 17)}


def together(table: Mapping[str, Any], runtime: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is wrong with values that are each right alone.

    Args:
        table: the hypervisor's table as Kata would see it, base file and tunables merged.
        runtime: `[runtime]`, likewise.

    Returns:
        Pairs of the key to blame (`table.key` for `runtime`'s) and what is wrong.
    """
    found = []
    for least, most in (("default_vcpus", "default_maxvcpus"), ("default_memory", "default_maxmemory")):
        low, high = table.get(least, 0), table.get(most, 0)
        if 0 < high < low:
            found.append((most, f"is below {least} = {low}: raise it, or write 0 for all that the node has"))
    if all(table.get(key, "no-port") not in {"", "no-port"} for key in ("hot_plug_vfio", "cold_plug_vfio")):
        found.append(("hot_plug_vfio", 'excludes cold_plug_vfio: write "no-port" for one of the two'))
    if table.get("pcie_root_port", 0) > 0 and table.get("pcie_switch_port", 0) > 0:
        found.append(("pcie_root_port", "excludes pcie_switch_port: write 0 for one of the two"))
    logical = table.get("block_device_logical_sector_size", 0)
    if 0 < table.get("block_device_physical_sector_size", 0) < logical:
        found.append(("block_device_logical_sector_size", "is above block_device_physical_sector_size"))
    if runtime.get("disable_new_netns") is True and runtime.get("internetworking_model") != "none":
        found.append(("runtime.disable_new_netns", 'works with internetworking_model = "none" only'))
    return found
