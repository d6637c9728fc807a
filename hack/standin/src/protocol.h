/* As much of ttrpc and of containerd's task service as the stand-in takes part in. */
#ifndef STANDIN_PROTOCOL_H
#define STANDIN_PROTOCOL_H

#include "util.h"

#include <limits.h>
#include <stdint.h>

struct frame {
    uint32_t stream;
    uint8_t type, flags;
    struct bytes payload;
};

bool frame_read(int fd, struct frame *frame);
bool frame_write(int fd, const struct frame *frame);
/* Answers the request `frame` with an error. */
void frame_fail(int fd, const struct frame *frame, const char *message);

struct create {
    char id[256], bundle[PATH_MAX], config_path[PATH_MAX];
    bool foreign_options; /* not Kata's: left as they are */
};

/* Whether `frame` is a Create request of the task service, and what it asks for. */
bool create_parse(const struct frame *frame, struct create *create);
/* Puts into the request the options that runc's shim understands in place of Kata's. */
void create_rewrite(struct frame *frame, const struct create *create);

#endif
