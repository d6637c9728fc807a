"""Keys that upstream's code accepts although its base files do not show them, with the release that has them first.

Read from upstream at 3.2.0, 3.30.0, 3.32.0, 4.0.0 and 4.1.0: src/runtime/pkg/katautils/config.go for Go and
src/libs/kata-types/src/config for Rust. A release in between may have a key earlier than this says; its base file then
usually shows it. Too late is only strict, too early would be fatal: the Go runtime refuses a drop-in with an unknown
key.
"""

from typing import Literal

Version = tuple[int, int, int]
Word = Literal["bool", "int", "float", "str", "strings"]

_EVER: Version = (0, 0, 0)


def names(text: str) -> frozenset[str]:
    """A set of keys, given as words."""
    return frozenset(text.split())


FLOATS_SINCE: dict[str, tuple[str, Version]] = {
    # The Go runtime decoded default_vcpus into an int32 until 3.3.0; the Rust runtime has always had floats.
    "default_vcpus": ("go", (3, 3, 0)),
    "overhead_vcpus": ("rust", _EVER),
}
"""Keys that take fractions although base files show a whole number: the Go runtime since the given release."""

ONLY_COMMENTED = names("hotplug_vfio_on_root_bus pcie_root_port")
"""Keys that base files of 3.2.0 show commented out although its Go runtime no longer, or not yet, knows them: measured
against the fields of `hypervisor` in its katautils/config.go. In a drop-in they are fatal."""

_GO_HYPERVISOR: dict[str, tuple[Word, Version]] = {
    "image": ("str", _EVER),
    "initrd": ("str", _EVER),
    "firmware": ("str", _EVER),
    "rootfs_type": ("str", _EVER),
    "kernel_verity_params": ("str", (3, 30, 0)),
    "confidential_guest": ("bool", _EVER),
    "entropy_source": ("str", _EVER),
    "disable_nesting_checks": ("bool", _EVER),
    "enable_mem_prealloc": ("bool", _EVER),
    "memory_slots": ("int", _EVER),
    "disable_image_nvdimm": ("bool", _EVER),
    "disable_block_device_use": ("bool", _EVER),
    "block_device_cache_set": ("bool", _EVER),
    "block_device_cache_direct": ("bool", _EVER),
    "reclaim_guest_freed_memory": ("bool", (3, 30, 0)),
    "cold_plug_vfio": ("str", _EVER),
    "hot_plug_vfio": ("str", _EVER),
    "disable_seccomp": ("bool", _EVER),
    "disable_selinux": ("bool", _EVER),
}
_GO_AGENT: dict[str, tuple[Word, Version]] = {
    "kernel_modules": ("strings", _EVER),
    "launch_process_timeout": ("int", (3, 30, 0)),
    "cdh_api_timeout": ("int", (3, 30, 0)),
    "visible_cdi_devices": ("bool", (3, 32, 0)),
}
_GO_RUNTIME: dict[str, tuple[Word, Version]] = {
    "enable_vcpus_pinning": ("bool", _EVER),
    "guest_selinux_label": ("str", _EVER),
    "sandbox_bind_mounts": ("strings", _EVER),
    "vfio_mode": ("str", _EVER),
    "create_container_timeout": ("int", (3, 30, 0)),
    "experimental_force_guest_pull": ("bool", (3, 30, 0)),
}
_RUST_HYPERVISOR: dict[str, tuple[Word, Version]] = {
    "image": ("str", _EVER),
    "initrd": ("str", _EVER),
    "firmware": ("str", _EVER),
    "rootfs_type": ("str", _EVER),
    "kernel_verity_params": ("str", (4, 1, 0)),
    "confidential_guest": ("bool", _EVER),
    "entropy_source": ("str", _EVER),
    "default_maxmemory": ("int", _EVER),
    "memory_slots": ("int", _EVER),
    "enable_mem_prealloc": ("bool", _EVER),
    "hugepage_type": ("str", (4, 1, 0)),
    "disable_block_device_use": ("bool", _EVER),
    "disable_image_nvdimm": ("bool", (4, 1, 0)),
    "block_device_cache_set": ("bool", _EVER),
    "block_device_cache_direct": ("bool", _EVER),
    "block_device_cache_noflush": ("bool", _EVER),
    "virtio_fs_is_dax": ("bool", _EVER),
    "log_level": ("str", (4, 1, 0)),
    "disable_selinux": ("bool", _EVER),
    "disable_guest_selinux": ("bool", (4, 1, 0)),
}
_RUST_AGENT: dict[str, tuple[Word, Version]] = {
    "kernel_modules": ("strings", _EVER),
    "container_pipe_size": ("int", _EVER),
    "server_port": ("int", _EVER),
    "log_port": ("int", _EVER),
    "log_level": ("str", (3, 30, 0)),
    "launch_process_timeout": ("int", (3, 30, 0)),
    "health_check_request_timeout_ms": ("int", (3, 30, 0)),
    "policy": ("str", (3, 30, 0)),
    "visible_cdi_devices": ("bool", (3, 32, 0)),
    "cdh_api_timeout_ms": ("int", (3, 32, 0)),
}
_RUST_RUNTIME: dict[str, tuple[Word, Version]] = {
    "enable_vcpus_pinning": ("bool", (4, 1, 0)),
    "vfio_mode": ("str", _EVER),
    "log_level": ("str", (3, 30, 0)),
    "keep_abnormal": ("bool", _EVER),
    "pod_resource_api_sock": ("str", (3, 32, 0)),
}

_TABLES: dict[tuple[str, str], dict[str, tuple[Word, Version]]] = {
    ("go", "hypervisor"): _GO_HYPERVISOR,
    ("go", "agent"): _GO_AGENT,
    ("go", "runtime"): _GO_RUNTIME,
    ("rust", "hypervisor"): _RUST_HYPERVISOR,
    ("rust", "agent"): _RUST_AGENT,
    ("rust", "runtime"): _RUST_RUNTIME,
}


def further(runtime: str, table: str, version: Version) -> dict[str, Word]:
    """The further keys of a table.

    Args:
        runtime: `go` or `rust`.
        table: `hypervisor`, `agent` or `runtime`.
        version: the release's.
    """
    return {key: word for key, (word, since) in _TABLES[runtime, table].items() if version >= since}
