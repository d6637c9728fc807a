/* The few settings of a Kata configuration that the stand-in acts upon. */
#ifndef STANDIN_CONFIG_H
#define STANDIN_CONFIG_H

#include "util.h"

#include <limits.h>

struct config {
    char file[PATH_MAX]; /* links resolved */
    char hypervisor[32]; /* clh, qemu, firecracker, … */
    char path[PATH_MAX], kernel[PATH_MAX], image[PATH_MAX], initrd[PATH_MAX];
    char virtio_fs_daemon[PATH_MAX];
    char shared_fs[64], block_device_driver[64], default_vcpus[32], default_memory[32];
    char kernel_params[2048];
    char runtime_name[64], hypervisor_name[32];
};

/* Reads `file`, or the first file at the places where Kata looks if it is empty, and its config.d/.
 * On false `error` says why, in the words that Kata uses where katanode looks for them. */
bool config_load(struct config *config, const char *file, bool runtime_rs, struct bytes *error);

#endif
