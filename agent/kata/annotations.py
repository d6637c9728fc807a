"""Which annotations an operator may let pods use, and why not others.

Source: upstream's src/runtime/virtcontainers/pkg/annotations/annotations.go and src/libs/kata-types/src/annotations.
Only the hypervisor's annotations are filtered by a list; those of runtime and agent always pass.
"""

import difflib

from agent.kata.furtherkeys import names
from agent.kata.handlers import ResolvedHandler

PREFIX = "io.katacontainers.config.hypervisor."

_BOTH = names(
    """blk_logical_sector_size blk_physical_sector_size block_device_cache_direct block_device_cache_noflush
    block_device_cache_set block_device_driver cc_init_data cpu_features default_gpu_model default_gpus
    default_max_vcpus default_memory default_vcpus disable_block_device_use disable_image_nvdimm disable_vhost_net
    enable_guest_swap enable_hugepages enable_iommu enable_iommu_platform enable_iothreads enable_mem_prealloc
    enable_vhost_user_store enable_virtio_mem firmware_hash image_hash indep_iothreads initrd_hash jailer_hash
    kernel_hash kernel_params kernel_verity_params machine_accelerators machine_type memory_offset memory_slots
    pcie_root_port pcie_switch_port rootless rx_rate_limiter_max_rate shared_fs tx_rate_limiter_max_rate
    virtio_fs_cache virtio_fs_cache_size"""
)
_GO = names(
    """block_device_aio cold_plug_vfio firmware_volume_hash hot_plug_vfio hypervisor_hash msize_9p numa_mapping
    reclaim_guest_freed_memory use_legacy_serial vhost_user_reconnect_timeout_sec"""
)
_RUST = names("asset_hash_type block_device_num_queues block_device_queue_size hugepage_type network_queues path_hash")

_HOST_PATHS = names(
    """entropy_source firmware firmware_volume image initrd jailer_path kernel path prefetch_files.list
    vhost_user_store_path virtio_fs_daemon"""
)
_MISNAMED = {
    "default_maxvcpus": "default_max_vcpus",
    "block_device_logical_sector_size": "blk_logical_sector_size",
    "block_device_physical_sector_size": "blk_physical_sector_size",
    "num_queues": "block_device_num_queues",
    "queue_size": "block_device_queue_size",
}
"""Keys whose annotation has another name."""


def known(handler: ResolvedHandler) -> frozenset[str]:
    """The annotations that may be let through for a handler."""
    return _BOTH | (_GO if handler.runtime == "go" else _RUST)


def wrong(handler: ResolvedHandler, name: str) -> str:
    """Why an annotation is not to be let through, and what to write instead; empty when it may."""
    if name in known(handler):
        return ""
    if name.startswith("io.katacontainers.config."):
        if not name.startswith(PREFIX):
            return "only the hypervisor's annotations need to be allowed: remove it"
        return f'give the part after {PREFIX[:-1]}: "{name.removeprefix(PREFIX)}"'
    if name in _HOST_PATHS:
        return "would let a pod name a file of the node for the hypervisor to run or read: remove it"
    if name == "virtio_fs_extra_args":
        return "would let a pod give virtiofsd another folder of the node to share: remove it"
    if name == "guest_hook_path":
        return "would let a pod run programs of its own as the guest's hooks: remove it"
    if name in _MISNAMED:
        return f'the annotation is called "{_MISNAMED[name]}"'
    if name in _GO | _RUST:
        return f"{handler.runtime_title} does not know it: remove it"
    near = difflib.get_close_matches(name, sorted(known(handler)), n=1, cutoff=0.6)
    return "no such annotation" + (f': did you mean "{near[0]}"?' if near else ": remove it")
