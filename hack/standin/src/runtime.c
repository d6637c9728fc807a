/* Stand-in for kata-runtime: `env` reads a configuration as far as config.c does, and fails where Kata would. */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int complain(const char *text) {
    fprintf(stderr, "kata-runtime (" STANDIN "): %s\n", text);
    return 1;
}

/* Path, or empty: what a configuration names must be there. */
static bool is_there(const char *path, struct bytes *error) {
    if (*path == '\0' || access(path, R_OK) == 0) return true;
    bytes_format(error, "file %s does not exist: %s", path, strerror(errno));
    return false;
}

static int print_environment(const char *file, bool json) {
    struct config config;
    struct bytes error = {0};
    if (!config_load(&config, file, false, &error) || !is_there(config.path, &error) ||
        !is_there(config.kernel, &error) || !is_there(config.image, &error) || !is_there(config.initrd, &error))
        return complain(error.data);
    printf(json ? "{\"Meta\":{\"Version\":\"%s\"},\"Runtime\":{\"Config\":{\"Path\":\"%s\"},\"Version\":{\"Semver\":"
                  "\"%s\"}},\"Hypervisor\":{\"Path\":\"%s\",\"BlockDeviceDriver\":\"%s\"}}\n"
                : "[Meta]\n  Version = \"%s\"\n\n[Runtime]\n  [Runtime.Config]\n    Path = \"%s\"\n  [Runtime.Version]\n"
                  "    Semver = \"%s\"\n\n[Hypervisor]\n  Path = \"%s\"\n  BlockDeviceDriver = \"%s\"\n",
           STANDIN, config.file, STANDIN_VERSION, config.path, config.block_device_driver);
    return 0;
}

int main(int count, char **arguments) {
    const char *file = "", *command = "";
    bool json = false;
    for (int i = 1; i < count; i++) {
        const char *word = arguments[i];
        if (strcmp(word, "--version") == 0 || strcmp(word, "-v") == 0) command = "version";
        else if ((strcmp(word, "--config") == 0 || strcmp(word, "--kata-config") == 0) && i + 1 < count)
            file = arguments[++i];
        else if (strncmp(word, "--config=", 9) == 0) file = word + 9;
        else if (strncmp(word, "--kata-config=", 14) == 0) file = word + 14;
        else if (strcmp(word, "--json") == 0) json = true;
        else if (*word != '-' && *command == '\0') command = word;
    }
    if (strcmp(command, "version") == 0) {
        puts("kata-runtime  : " STANDIN_VERSION " (" STANDIN ")");
        return 0;
    }
    if (strcmp(command, "env") == 0 || strcmp(command, "kata-env") == 0) return print_environment(file, json);
    return complain("only env and --version are there");
}
