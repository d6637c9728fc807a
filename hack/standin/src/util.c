#include "util.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

void bytes_add(struct bytes *to, const void *data, size_t size) {
    to->data = realloc(to->data, to->size + size + 1);
    if (to->data == NULL) abort();
    if (size > 0) memcpy(to->data + to->size, data, size);
    to->size += size;
    to->data[to->size] = '\0';
}

void bytes_format(struct bytes *to, const char *format, ...) {
    char text[8192];
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (size < 0) return;
    bytes_add(to, text, (size_t)size < sizeof text ? (size_t)size : sizeof text - 1);
}

void bytes_free(struct bytes *bytes) {
    free(bytes->data);
    *bytes = (struct bytes){0};
}

bool read_fd(int fd, struct bytes *to) {
    char part[65536];
    bytes_add(to, "", 0);
    for (;;) {
        ssize_t size = read(fd, part, sizeof part);
        if (size == 0) return true;
        if (size > 0) bytes_add(to, part, (size_t)size);
        else if (errno != EINTR) return false;
    }
}

bool read_path(const char *path, struct bytes *to) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    bool done = read_fd(fd, to);
    int error = errno;
    close(fd);
    errno = error;
    return done;
}

bool read_exactly(int fd, void *data, size_t size) {
    for (char *at = data; size > 0;) {
        ssize_t part = read(fd, at, size);
        if (part == 0 || (part < 0 && errno != EINTR)) return false;
        if (part > 0) at += part, size -= (size_t)part;
    }
    return true;
}

bool write_all(int fd, const void *data, size_t size) {
    for (const char *at = data; size > 0;) {
        ssize_t part = write(fd, at, size);
        if (part < 0 && errno != EINTR) return false;
        if (part > 0) at += part, size -= (size_t)part;
    }
    return true;
}

bool write_path(const char *path, const char *text) {
    const char *staging = path_of("%s.new", path);
    int fd = open(staging, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) return false;
    bool done = write_all(fd, text, strlen(text));
    return close(fd) == 0 && done && rename(staging, path) == 0;
}

const char *path_of(const char *format, ...) {
    static char buffers[8][PATH_MAX];
    static unsigned turn;
    char *buffer = buffers[turn++ % 8];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(buffer, PATH_MAX, format, arguments);
    va_end(arguments);
    return buffer;
}

void make_folders(const char *path) {
    char part[PATH_MAX];
    for (size_t at = 0; at < sizeof part - 1; at++) {
        if ((path[at] == '/' && at > 0) || path[at] == '\0') {
            part[at] = '\0';
            mkdir(part, 0700);
        }
        if (path[at] == '\0') return;
        part[at] = path[at];
    }
}

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *place) {
    (void)status, (void)type, (void)place;
    remove(path);
    return 0;
}

void remove_tree(const char *path) { nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT); }

const char *program_folder(void) {
    static char path[PATH_MAX];
    ssize_t size = readlink("/proc/self/exe", path, sizeof path - 1);
    path[size > 0 ? size : 0] = '\0';
    char *slash = strrchr(path, '/');
    if (slash != NULL) *slash = '\0';
    return path;
}

bool is_runtime_rs(void) {
#ifdef STANDIN_RUNTIME_RS
    return true;
#else
    return strstr(program_folder(), "/runtime-rs/") != NULL;
#endif
}

static int unix_socket(const char *path, struct sockaddr_un *address) {
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address->sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(address->sun_path, path, strlen(path));
    return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

int listen_unix(const char *path) {
    struct sockaddr_un address;
    const char *slash = strrchr(path, '/');
    int folder = -1;
    unlink(path);
    if (strlen(path) >= sizeof address.sun_path && slash != NULL) {
        /* Longer than an address may be: by way of its folder. */
        folder = open(path_of("%.*s", (int)(slash - path), path), O_PATH | O_CLOEXEC);
        path = path_of("/proc/self/fd/%d%s", folder, slash);
    }
    int fd = unix_socket(path, &address);
    if (fd >= 0 && (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 64) < 0)) {
        int error = errno;
        close(fd);
        errno = error;
        fd = -1;
    }
    if (folder >= 0) close(folder);
    return fd;
}

int connect_unix(const char *path) {
    struct sockaddr_un address;
    int fd = unix_socket(path, &address);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

void each_process(void (*each)(pid_t process, pid_t parent, void *context), void *context) {
    DIR *folder = opendir("/proc");
    if (folder == NULL) return;
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        pid_t process = (pid_t)atoi(entry->d_name);
        struct bytes text = {0};
        if (process > 0 && read_path(path_of("/proc/%d/stat", process), &text)) {
            /* The name, in parentheses, may hold anything. */
            char *after = strrchr(text.data, ')');
            int parent;
            if (after != NULL && sscanf(after + 1, " %*c %d", &parent) == 1) each(process, parent, context);
        }
        bytes_free(&text);
    }
    closedir(folder);
}

void kill_if_named(pid_t process, const char *word, int number) {
    struct bytes words = {0};
    if (process > 1 && read_path(path_of("/proc/%d/cmdline", process), &words) &&
        memmem(words.data, words.size, word, strlen(word)) != NULL)
        kill(process, number);
    bytes_free(&words);
}

static const char *json_value(const char *text, const char *key) {
    const char *quoted = path_of("\"%s\"", key);
    for (const char *at = text; (at = strstr(at, quoted)) != NULL;) {
        at += strlen(quoted);
        at += strspn(at, " \t\r\n");
        if (*at == ':') return at + 1 + strspn(at + 1, " \t\r\n");
    }
    return NULL;
}

long json_number(const char *text, const char *key) {
    const char *value = json_value(text, key);
    return value == NULL ? 0 : strtol(value, NULL, 10);
}

bool json_string(const char *text, const char *key, char *value, size_t size) {
    const char *at = json_value(text, key);
    if (at == NULL || *at != '"') return false;
    size_t length = strcspn(++at, "\"");
    if (length >= size) return false;
    memcpy(value, at, length);
    value[length] = '\0';
    return true;
}
