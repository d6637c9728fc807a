/* What a sandbox of the stand-in has on the host: VMM, virtiofsd, folders. */
#ifndef STANDIN_SANDBOX_H
#define STANDIN_SANDBOX_H

#include "config.h"

struct sandbox {
    char id[256];
    bool runtime_rs;
    bool orphan; /* the VMM outlives a killed shim */
    pid_t shim;  /* containerd-shim-runc-v2 */
    pid_t vmm, virtiofsd;
    char upstream[108], socket[108]; /* its socket, and the daemon's */
};

void sandbox_open(struct sandbox *sandbox, const char *id);
/* Writes down which processes belong to it, for `delete` and for people. */
void sandbox_record(const struct sandbox *sandbox);
/* Starts virtiofsd and the VMM as the configuration says, and waits until the VM exists. On false nothing of it is
 * left, and `error` says why. */
bool sandbox_start(struct sandbox *sandbox, const char *config_file, const char *bundle, struct bytes *error);
/* Ends VMM and virtiofsd, and removes the folders. */
void sandbox_stop(struct sandbox *sandbox);
/* `delete`: the same for a sandbox whose shim has gone, by what was written down. */
void sandbox_clean(const char *id);

#endif
