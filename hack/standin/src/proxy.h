/* The shim's daemon: between containerd and containerd-shim-runc-v2. */
#ifndef STANDIN_PROXY_H
#define STANDIN_PROXY_H

#include "sandbox.h"

/* Serves on `listening` until runc's shim has exited; returns the exit status. */
int proxy_serve(struct sandbox *sandbox, int listening);

#endif
