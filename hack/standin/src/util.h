/* katanode's stand-in for Kata Containers: small helpers. No isolation: see ../README.md. */
#ifndef STANDIN_UTIL_H
#define STANDIN_UTIL_H

#define _GNU_SOURCE
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define STANDIN "katanode STAND-IN: no isolation"
#ifndef STANDIN_VERSION
#define STANDIN_VERSION "0"
#endif

/* Bytes that grow; `data` always ends in a NUL that `size` does not count. */
struct bytes {
    char *data;
    size_t size;
};

void bytes_add(struct bytes *to, const void *data, size_t size);
void bytes_format(struct bytes *to, const char *format, ...) __attribute__((format(printf, 2, 3)));
void bytes_free(struct bytes *bytes);

/* All of a file, or of a pipe to its end; false with errno. */
bool read_fd(int fd, struct bytes *to);
bool read_path(const char *path, struct bytes *to);
bool read_exactly(int fd, void *data, size_t size);
bool write_all(int fd, const void *data, size_t size);
bool write_path(const char *path, const char *text);

/* A path made with printf's rules; in one of eight buffers that take turns. */
const char *path_of(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Makes every folder of `path` that is missing. */
void make_folders(const char *path);
void remove_tree(const char *path);
/* The folder of the running program, links resolved. */
const char *program_folder(void);
/* Whether the program lies where a release keeps runtime-rs. */
bool is_runtime_rs(void);

int listen_unix(const char *path);
int connect_unix(const char *path);

/* Calls `each` for every process; `parent` is its parent's number. */
void each_process(void (*each)(pid_t process, pid_t parent, void *context), void *context);
/* Kills `process` if `word` stands in its command line: numbers are used again. */
void kill_if_named(pid_t process, const char *word, int number);
/* The number after `"key":` in a flat JSON text of our own; 0 if there is none. */
long json_number(const char *text, const char *key);
/* The string after `"key":`, without undoing escapes; false if there is none. */
bool json_string(const char *text, const char *key, char *value, size_t size);

#endif
