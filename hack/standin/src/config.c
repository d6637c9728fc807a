#include "config.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const hypervisors[] = {"clh",    "qemu",       "firecracker", "dragonball",
                                          "remote", "stratovirt", "openvmm",     NULL};
static const char *const go_block_drivers[] = {"virtio-scsi", "virtio-blk",     "virtio-mmio",
                                               "nvdimm",      "virtio-blk-ccw", NULL};

static bool among(const char *word, const char *const *words) {
    for (; *words != NULL; words++)
        if (strcmp(word, *words) == 0) return true;
    return false;
}

/* Takes a comment, white space and quotes off a value. */
static void plain_value(char *value) {
    char quote = '\0';
    char *end = value;
    for (; *end != '\0' && (quote != '\0' || *end != '#'); end++) {
        if (quote == '\0' && (*end == '"' || *end == '\'')) quote = *end;
        else if (*end == quote) quote = '\0';
    }
    while (end > value && isspace((unsigned char)end[-1])) end--;
    if (end - value >= 2 && (*value == '"' || *value == '\'') && end[-1] == *value) {
        memmove(value, value + 1, (size_t)(end - value - 2));
        end -= 2;
    }
    *end = '\0';
}

/* Takes white space and quotes out of a key. */
static void plain_key(char *key) {
    char *to = key;
    for (char *at = key; *at != '\0'; at++)
        if (!isspace((unsigned char)*at) && *at != '"' && *at != '\'') *to++ = *at;
    *to = '\0';
}

static bool set(struct config *config, const char *key, const char *value, struct bytes *error) {
    static const char prefix[] = "hypervisor.";
    char *target = NULL;
    size_t size = 0;
#define FIELD(name, field) \
    if (strcmp(key, name) == 0) target = config->field, size = sizeof config->field
    if (strncmp(key, prefix, sizeof prefix - 1) == 0) {
        const char *name = key + sizeof prefix - 1, *dot = strchr(name, '.');
        if (dot == NULL) return true;
        const char *hypervisor = path_of("%.*s", (int)(dot - name), name);
        if (!among(hypervisor, hypervisors)) {
            bytes_format(error, "configuration file contains invalid hypervisor section: %s", hypervisor);
            return false;
        }
        snprintf(config->hypervisor, sizeof config->hypervisor, "%s", hypervisor);
        key = dot + 1;
        FIELD("path", path);
        FIELD("kernel", kernel);
        FIELD("image", image);
        FIELD("initrd", initrd);
        FIELD("virtio_fs_daemon", virtio_fs_daemon);
        FIELD("shared_fs", shared_fs);
        FIELD("block_device_driver", block_device_driver);
        FIELD("default_vcpus", default_vcpus);
        FIELD("default_memory", default_memory);
        FIELD("kernel_params", kernel_params);
    } else {
        FIELD("runtime.name", runtime_name);
        FIELD("runtime.hypervisor_name", hypervisor_name);
    }
#undef FIELD
    if (target != NULL) snprintf(target, size, "%s", value);
    return true;
}

static bool load_file(struct config *config, const char *path, struct bytes *error) {
    struct bytes text = {0};
    char section[256] = "";
    if (!read_path(path, &text)) {
        bytes_format(error, "read %s: %s", path, strerror(errno));
        bytes_free(&text);
        return false;
    }
    bool good = true;
    unsigned number = 0;
    for (char *line = text.data, *next; good && line != NULL; line = next) {
        next = strchr(line, '\n');
        if (next != NULL) *next++ = '\0';
        number++;
        line += strspn(line, " \t\r");
        char *equals = strchr(line, '='), *close = strchr(line, ']');
        if (*line == '#' || *line == '\0') continue;
        if (*line == '[' && (equals == NULL || equals > close)) {
            if (close == NULL) {
                bytes_format(error, "%s: line %u: a table's header is not closed", path, number);
                good = false;
                continue;
            }
            *close = '\0';
            snprintf(section, sizeof section, "%s", line + 1);
            plain_key(section);
        } else if (equals != NULL) {
            *equals = '\0';
            plain_key(line);
            plain_value(equals + 1 + strspn(equals + 1, " \t"));
            good = set(config, path_of(*section ? "%s.%s" : "%s%s", section, line),
                       equals + 1 + strspn(equals + 1, " \t"), error);
        }
    }
    bytes_free(&text);
    return good;
}

static int by_name(const struct dirent **one, const struct dirent **other) {
    return strcmp((*one)->d_name, (*other)->d_name);
}

/* config.d/ beside the real file, in the order of names. */
static bool load_drop_ins(struct config *config, bool runtime_rs, struct bytes *error) {
    /* Not path_of's: its buffers are used again while a file is read. */
    char folder[PATH_MAX], file[PATH_MAX + 256];
    const char *slash = strrchr(config->file, '/');
    snprintf(folder, sizeof folder, "%.*s/config.d", (int)(slash - config->file), config->file);
    struct dirent **entries;
    int count = scandir(folder, &entries, NULL, by_name);
    bool good = true;
    for (int i = 0; i < count; i++) {
        if (good && strcmp(entries[i]->d_name, ".") != 0 && strcmp(entries[i]->d_name, "..") != 0) {
            snprintf(file, sizeof file, "%s/%s", folder, entries[i]->d_name);
            struct stat status;
            /* runtime-rs takes files only, the Go runtime all that can be read. */
            if (runtime_rs && (lstat(file, &status) < 0 || !S_ISREG(status.st_mode))) {
                bytes_format(error, "drop-in %s is no regular file", file);
                good = false;
            } else {
                good = load_file(config, file, error);
            }
        }
        free(entries[i]);
    }
    if (count >= 0) free(entries);
    return good;
}

static bool check(const struct config *config, bool runtime_rs, struct bytes *error) {
    if (*config->hypervisor == '\0') bytes_format(error, "%s has no hypervisor section", config->file);
    else if (runtime_rs && strcmp(config->runtime_name, "virt_container") != 0)
        bytes_format(error, "Unsupported runtime %s", config->runtime_name);
    else if (runtime_rs && strcmp(config->hypervisor_name, config->hypervisor) != 0)
        bytes_format(error, "hypervisor_name %s has no section", config->hypervisor_name);
    else if (!runtime_rs && *config->block_device_driver && !among(config->block_device_driver, go_block_drivers))
        bytes_format(error, "Invalid hypervisor block storage driver %s", config->block_device_driver);
    else if (*config->image && *config->initrd)
        bytes_format(error, "image and initrd exclude each other: %s, %s", config->image, config->initrd);
    else return true;
    return false;
}

bool config_load(struct config *config, const char *file, bool runtime_rs, struct bytes *error) {
    char defaults[PATH_MAX];
    snprintf(defaults, sizeof defaults, "%s/share/defaults/kata-containers/%sconfiguration.toml",
             path_of("%s/%s", program_folder(), runtime_rs ? "../.." : ".."), runtime_rs ? "runtime-rs/" : "");
    const char *etc = runtime_rs ? "/etc/kata-containers/runtime-rs/configuration.toml"
                                 : "/etc/kata-containers/configuration.toml";
    *config = (struct config){.default_vcpus = "1", .default_memory = "2048"};
    if (*file == '\0') file = access(etc, R_OK) == 0 ? etc : defaults;
    if (realpath(file, config->file) == NULL) {
        bytes_format(error, "configuration file %s: %s", file, strerror(errno));
        return false;
    }
    return load_file(config, config->file, error) && load_drop_ins(config, runtime_rs, error) &&
           check(config, runtime_rs, error);
}
