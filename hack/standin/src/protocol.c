#include "protocol.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#define REQUEST 1
#define RESPONSE 2
#define MAX_PAYLOAD (4U << 20)
/* Fields of the messages, by their numbers. */
enum { REQUEST_SERVICE = 1, REQUEST_METHOD = 2, REQUEST_PAYLOAD = 3 };
enum { RESPONSE_STATUS = 1, STATUS_CODE = 1, STATUS_MESSAGE = 2, CODE_UNKNOWN = 2 };
enum { CREATE_ID = 1, CREATE_BUNDLE = 2, CREATE_OPTIONS = 10 };
enum { ANY_TYPE = 1, ANY_VALUE = 2, KATA_CONFIG_PATH = 2, RUNC_SYSTEMD_CGROUP = 9 };

struct head {
    uint32_t size, stream;
    uint8_t type, flags;
} __attribute__((packed));

bool frame_read(int fd, struct frame *frame) {
    struct head head;
    if (!read_exactly(fd, &head, sizeof head)) return false;
    uint32_t size = ntohl(head.size);
    frame->stream = ntohl(head.stream);
    frame->type = head.type;
    frame->flags = head.flags;
    if (size > MAX_PAYLOAD) return false;
    static char payload[MAX_PAYLOAD];
    if (!read_exactly(fd, payload, size)) return false;
    bytes_add(&frame->payload, payload, size);
    return true;
}

bool frame_write(int fd, const struct frame *frame) {
    struct head head = {htonl((uint32_t)frame->payload.size), htonl(frame->stream), frame->type, frame->flags};
    return write_all(fd, &head, sizeof head) && write_all(fd, frame->payload.data, frame->payload.size);
}

struct field {
    uint32_t number, wire;
    uint64_t value;                  /* a varint's */
    const char *start, *data, *next; /* of the whole field; of its content */
    size_t size;
};

static bool varint(const char **at, const char *end, uint64_t *value) {
    *value = 0;
    for (unsigned shift = 0; *at < end && shift < 64; shift += 7) {
        unsigned char byte = (unsigned char)*(*at)++;
        *value |= (uint64_t)(byte & 0x7f) << shift;
        if ((byte & 0x80) == 0) return true;
    }
    return false;
}

/* The field at `at`; false at the end, or where the message makes no sense. */
static bool next_field(const char *at, const char *end, struct field *field) {
    uint64_t key;
    field->start = at;
    if (!varint(&at, end, &key)) return false;
    field->number = (uint32_t)(key >> 3);
    field->wire = key & 7;
    field->data = at;
    if (field->wire == 0) {
        if (!varint(&at, end, &field->value)) return false;
        field->size = (size_t)(at - field->data);
    } else if (field->wire == 2) {
        if (!varint(&at, end, &field->value)) return false;
        field->data = at;
        field->size = field->value;
    } else {
        field->size = field->wire == 1 ? 8 : 4;
    }
    if (field->size > (size_t)(end - field->data)) return false;
    field->next = field->data + field->size;
    return true;
}

#define EACH_FIELD(field, bytes, length) \
    for (const char *at_ = (bytes), *end_ = at_ + (length); next_field(at_, end_, &(field)); at_ = (field).next)

static void add_varint(struct bytes *to, uint64_t value) {
    do {
        unsigned char byte = (unsigned char)((value & 0x7f) | (value > 0x7f ? 0x80 : 0));
        bytes_add(to, &byte, 1);
        value >>= 7;
    } while (value > 0);
}

static void add_number(struct bytes *to, unsigned number, uint64_t value) {
    add_varint(to, number << 3);
    add_varint(to, value);
}

static void add_field(struct bytes *to, unsigned number, const char *data, size_t size) {
    add_varint(to, number << 3 | 2);
    add_varint(to, size);
    bytes_add(to, data, size);
}

static bool is_text(const struct field *field, const char *text) {
    return field->wire == 2 && field->size == strlen(text) && memcmp(field->data, text, field->size) == 0;
}

static void copy_text(const struct field *field, char *to, size_t size) {
    snprintf(to, size, "%.*s", (int)field->size, field->data);
}

void frame_fail(int fd, const struct frame *frame, const char *message) {
    struct bytes status = {0};
    struct frame answer = {.stream = frame->stream, .type = RESPONSE};
    add_number(&status, STATUS_CODE, CODE_UNKNOWN);
    add_field(&status, STATUS_MESSAGE, message, strlen(message));
    add_field(&answer.payload, RESPONSE_STATUS, status.data, status.size);
    frame_write(fd, &answer);
    bytes_free(&status);
    bytes_free(&answer.payload);
}

static void parse_options(const struct field *options, struct create *create) {
    struct field field, inner;
    EACH_FIELD(field, options->data, options->size) {
        if (field.number == ANY_TYPE)
            create->foreign_options = memmem(field.data, field.size, "runtimeoptions", strlen("runtimeoptions")) == NULL;
        if (field.number == ANY_VALUE && !create->foreign_options)
            EACH_FIELD(inner, field.data, field.size) {
                if (inner.number == KATA_CONFIG_PATH && inner.wire == 2)
                    copy_text(&inner, create->config_path, sizeof create->config_path);
            }
    }
}

bool create_parse(const struct frame *frame, struct create *create) {
    struct field field, payload = {0}, inner;
    bool service = false, method = false;
    *create = (struct create){0};
    if (frame->type != REQUEST) return false;
    EACH_FIELD(field, frame->payload.data, frame->payload.size) {
        if (field.number == REQUEST_SERVICE)
            service = is_text(&field, "containerd.task.v2.Task") || is_text(&field, "containerd.task.v3.Task");
        if (field.number == REQUEST_METHOD) method = is_text(&field, "Create");
        if (field.number == REQUEST_PAYLOAD) payload = field;
    }
    if (!service || !method || payload.data == NULL) return false;
    EACH_FIELD(inner, payload.data, payload.size) {
        if (inner.number == CREATE_ID) copy_text(&inner, create->id, sizeof create->id);
        if (inner.number == CREATE_BUNDLE) copy_text(&inner, create->bundle, sizeof create->bundle);
        if (inner.number == CREATE_OPTIONS) parse_options(&inner, create);
    }
    return true;
}

/* Kata's options do not say it: a cgroup path with colons is meant for systemd. */
static void add_runc_options(struct bytes *to, const struct create *create) {
    static const char type[] = "containerd.runc.v1.Options";
    struct bytes spec = {0}, any = {0}, options = {0};
    char cgroup[PATH_MAX];
    if (read_path(path_of("%s/config.json", create->bundle), &spec) &&
        json_string(spec.data, "cgroupsPath", cgroup, sizeof cgroup) && strchr(cgroup, ':') != NULL) {
        add_number(&options, RUNC_SYSTEMD_CGROUP, 1);
        add_field(&any, ANY_TYPE, type, strlen(type));
        add_field(&any, ANY_VALUE, options.data, options.size);
        add_field(to, CREATE_OPTIONS, any.data, any.size);
    }
    bytes_free(&spec);
    bytes_free(&any);
    bytes_free(&options);
}

void create_rewrite(struct frame *frame, const struct create *create) {
    struct field field, inner;
    struct bytes request = {0}, payload = {0};
    if (create->foreign_options) return;
    EACH_FIELD(field, frame->payload.data, frame->payload.size) {
        if (field.number != REQUEST_PAYLOAD) {
            bytes_add(&request, field.start, (size_t)(field.next - field.start));
            continue;
        }
        EACH_FIELD(inner, field.data, field.size) {
            if (inner.number != CREATE_OPTIONS) bytes_add(&payload, inner.start, (size_t)(inner.next - inner.start));
        }
        add_runc_options(&payload, create);
        add_field(&request, REQUEST_PAYLOAD, payload.data, payload.size);
    }
    bytes_free(&payload);
    bytes_free(&frame->payload);
    frame->payload = request;
}
