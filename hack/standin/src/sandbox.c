#include "sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define VMM_START_MS 10000
#define VMM_STOP_MS 1000
#define INHERITED_FD 3
#define SHARED "/run/kata-containers/shared/sandboxes"

/* Every folder that a sandbox may have, Go runtime and runtime-rs. */
static const char *const all_folders[] = {"/run/vc/sbs", "/run/vc/vm", "/run/vc/firecracker", "/run/kata", SHARED};

static const char *state_folder(const struct sandbox *sandbox) {
    return path_of("%s/%s", sandbox->runtime_rs ? "/run/kata" : "/run/vc/sbs", sandbox->id);
}

void sandbox_open(struct sandbox *sandbox, const char *id) {
    *sandbox = (struct sandbox){.runtime_rs = is_runtime_rs()};
    snprintf(sandbox->id, sizeof sandbox->id, "%s", id);
    const char *orphan = getenv("KATANODE_STANDIN_ORPHAN");
    sandbox->orphan = orphan != NULL && strcmp(orphan, "1") == 0;
}

void sandbox_record(const struct sandbox *sandbox) {
    struct bytes text = {0};
    const char *folder = state_folder(sandbox);
    make_folders(folder);
    bytes_format(&text, "{\"note\":\"%s\",\"id\":\"%s\",\"proxy\":%d,\"shim\":%d,\"vmm\":%d,\"virtiofsd\":%d,\"orphan\":%d,", STANDIN,
                 sandbox->id, getpid(), sandbox->shim, sandbox->vmm, sandbox->virtiofsd, sandbox->orphan);
    bytes_format(&text, "\"socket\":\"%s\",\"upstream\":\"%s\"}\n", sandbox->socket, sandbox->upstream);
    write_path(path_of("%s/%s", folder, sandbox->runtime_rs ? "state.json" : "persist.json"), text.data);
    bytes_free(&text);
}

static void remove_folders(const char *id) {
    for (size_t i = 0; i < sizeof all_folders / sizeof *all_folders; i++)
        remove_tree(path_of("%s/%s", all_folders[i], id));
}

struct program {
    char *const *arguments;
    int netns;     /* entered before it starts, if >= 0 */
    int inherited; /* becomes descriptor 3 */
    int log;       /* becomes its standard error */
    bool outlive;  /* not killed with its parent */
};

static pid_t spawn(const struct program *program) {
    pid_t parent = getpid(), child = fork();
    if (child != 0) return child;
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    dup2(null, STDIN_FILENO);
    dup2(null, STDOUT_FILENO);
    dup2(program->log, STDERR_FILENO);
    if (!program->outlive) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) _exit(127);
    }
    if (program->netns >= 0 && setns(program->netns, CLONE_NEWNET) < 0) {
        dprintf(STDERR_FILENO, "entering the pod's network namespace: %s\n", strerror(errno));
        _exit(127);
    }
    if (program->inherited == INHERITED_FD) fcntl(INHERITED_FD, F_SETFD, 0);
    else dup2(program->inherited, INHERITED_FD);
    if (chdir("/") == 0) execv(program->arguments[0], program->arguments);
    dprintf(STDERR_FILENO, "starting %s: %s\n", program->arguments[0], strerror(errno));
    _exit(127);
}

/* The namespace that config.json names in linux.namespaces; -1 if it names none. */
static int open_netns(const char *bundle) {
    struct bytes text = {0};
    char path[PATH_MAX];
    int fd = -1;
    read_path(path_of("%s/config.json", bundle), &text);
    char *list = text.size > 0 ? strstr(text.data, "\"namespaces\":") : NULL;
    char *end = list == NULL ? NULL : strchr(list, ']');
    while (end != NULL && (list = strchr(list, '{')) != NULL && list < end) {
        char *close = strchr(list, '}'), type[32];
        if (close == NULL) break;
        *close = '\0';
        if (json_string(list, "type", type, sizeof type) && strcmp(type, "network") == 0 &&
            json_string(list, "path", path, sizeof path))
            fd = open(path, O_RDONLY | O_CLOEXEC);
        list = close + 1;
    }
    bytes_free(&text);
    return fd;
}

static bool start_virtiofsd(struct sandbox *sandbox, const struct config *config, int log, struct bytes *error) {
    const char *id = sandbox->id;
    const char *folder = path_of(sandbox->runtime_rs ? "/run/kata/%s/root" : "/run/vc/vm/%s", id);
    const char *socket = path_of("%s/virtiofsd.sock", folder);
    char daemon[PATH_MAX], shared[PATH_MAX], address[PATH_MAX];
    snprintf(daemon, sizeof daemon, "%s", config->virtio_fs_daemon);
    snprintf(address, sizeof address, "%s", socket);
    snprintf(shared, sizeof shared, "--shared-dir=%s/%s/shared", SHARED, id);
    char *go[] = {daemon,     "--syslog", "--cache=auto",           shared,
                  "--fd=3",   "--thread-pool-size=1", "--announce-submounts", NULL};
    char *rs[] = {daemon,  "--socket-path", address, "--shared-dir",         shared + strlen("--shared-dir="),
                  "--cache", "auto", "--thread-pool-size=1", "-o", "announce_submounts", NULL};
    if (sandbox->runtime_rs) snprintf(shared, sizeof shared, "--shared-dir=%s/%s/ro", SHARED, id);
    make_folders(folder);
    make_folders(shared + strlen("--shared-dir="));
    make_folders(path_of(sandbox->runtime_rs ? SHARED "/%s/rw" : SHARED "/%s/mounts", id));
    if (access(daemon, X_OK) < 0) {
        bytes_format(error, "virtiofsd %s: %s", daemon, strerror(errno));
        return false;
    }
    int listening = listen_unix(address);
    struct program program = {sandbox->runtime_rs ? rs : go, -1, listening, log, sandbox->orphan};
    sandbox->virtiofsd = spawn(&program);
    close(listening);
    return true;
}

/* The VMM, with the arguments by which its kind is recognized in /proc. */
static pid_t spawn_vmm(const struct sandbox *sandbox, const struct config *config, const char *bundle, int ready, int log) {
    const char *id = sandbox->id;
    char path[PATH_MAX], word[PATH_MAX], socket[PATH_MAX];
    char *clh[] = {path, "--api-socket", socket, NULL};
    char *firecracker[] = {path, "--api-sock", socket, NULL};
    char *qemu[] = {path, "-name", word, "-machine", "q35,accel=kvm", "-qmp", socket, NULL};
    char **arguments = clh;
    snprintf(path, sizeof path, "%s", config->path);
    snprintf(word, sizeof word, "sandbox-%s", id);
    snprintf(socket, sizeof socket, sandbox->runtime_rs ? "/run/kata/%s/ch-api.sock" : "/run/vc/vm/%s/clh-api.sock", id);
    make_folders(path_of(sandbox->runtime_rs ? "/run/kata/%s" : "/run/vc/vm/%s", id));
    if (strcmp(config->hypervisor, "qemu") == 0) {
        snprintf(socket, sizeof socket, "unix:%s/%s/qmp.sock,server=on,wait=off", sandbox->runtime_rs ? "/run/kata" : "/run/vc/vm", id);
        arguments = qemu;
    } else if (strcmp(config->hypervisor, "firecracker") == 0) {
        snprintf(socket, sizeof socket, "/run/vc/firecracker/%s/root/run/firecracker.socket", id);
        make_folders(path_of("/run/vc/firecracker/%s/root/run", id));
        arguments = firecracker;
    }
    long vcpus = strtol(config->default_vcpus, NULL, 10);
    if (vcpus <= 0) vcpus = sysconf(_SC_NPROCESSORS_ONLN);
    setenv("KATANODE_STANDIN_VCPUS", path_of("%ld", vcpus), 1);
    setenv("KATANODE_STANDIN_MEMORY_MIB", config->default_memory, 1);
    setenv("KATANODE_STANDIN_KERNEL_PARAMS", config->kernel_params, 1);
    setenv("KATANODE_STANDIN_READY_FD", "3", 1);
    if (sandbox->runtime_rs) setenv("RUST_BACKTRACE", "full", 1);
    int netns = open_netns(bundle);
    struct program program = {arguments, netns, ready, log, sandbox->orphan};
    pid_t vmm = spawn(&program);
    if (netns >= 0) close(netns);
    return vmm;
}

static bool start_vmm(struct sandbox *sandbox, const struct config *config, const char *bundle, int log, struct bytes *error) {
    int ready[2];
    if (pipe2(ready, O_CLOEXEC) < 0) return false;
    sandbox->vmm = spawn_vmm(sandbox, config, bundle, ready[1], log);
    close(ready[1]);
    struct pollfd waited = {.fd = ready[0], .events = POLLIN};
    char byte;
    int polled = poll(&waited, 1, VMM_START_MS);
    bool started = polled == 1 && read(ready[0], &byte, 1) == 1;
    close(ready[0]);
    if (started) return true;
    if (polled == 0) {
        bytes_format(error, "VMM %s said nothing for %d s", config->path, VMM_START_MS / 1000);
        return false;
    }
    char said[2048];
    ssize_t size = pread(log, said, sizeof said - 1, 0);
    while (size > 0 && said[size - 1] == '\n') size--;
    bytes_format(error, "VMM %s did not start: %.*s", config->path, (int)(size > 0 ? size : 0), said);
    return false;
}

bool sandbox_start(struct sandbox *sandbox, const char *config_file, const char *bundle, struct bytes *error) {
    struct config config;
    if (!config_load(&config, config_file, sandbox->runtime_rs, error)) return false;
    if (strstr(config.kernel_params, "katanode_standin.orphan=1") != NULL) sandbox->orphan = true;
    int log = memfd_create("stand-in log", MFD_CLOEXEC);
    bool wants_virtiofsd = strcmp(config.shared_fs, "virtio-fs") == 0 && *config.virtio_fs_daemon != '\0';
    bool started = (!wants_virtiofsd || start_virtiofsd(sandbox, &config, log, error)) &&
                   start_vmm(sandbox, &config, bundle, log, error);
    close(log);
    if (started) sandbox_record(sandbox);
    else sandbox_stop(sandbox);
    return started;
}

static void end_child(pid_t *child) {
    if (*child <= 0) return;
    kill(*child, SIGTERM);
    for (int waited = 0; waitpid(*child, NULL, WNOHANG) == 0; waited++) {
        if (waited == VMM_STOP_MS) kill(*child, SIGKILL);
        usleep(1000);
    }
    *child = 0;
}

void sandbox_stop(struct sandbox *sandbox) {
    end_child(&sandbox->vmm);
    end_child(&sandbox->virtiofsd);
    remove_folders(sandbox->id);
}

void sandbox_clean(const char *id) {
    struct sandbox sandbox;
    struct bytes text = {0};
    sandbox_open(&sandbox, id);
    /* A container that joined a sandbox has no record. */
    if (read_path(path_of("%s/%s", state_folder(&sandbox), sandbox.runtime_rs ? "state.json" : "persist.json"), &text)) {
        kill_if_named((pid_t)json_number(text.data, "proxy"), id, SIGKILL);
        kill_if_named((pid_t)json_number(text.data, "shim"), id, SIGKILL);
        if (json_string(text.data, "socket", sandbox.socket, sizeof sandbox.socket)) unlink(sandbox.socket);
        if (json_string(text.data, "upstream", sandbox.upstream, sizeof sandbox.upstream)) unlink(sandbox.upstream);
        if (json_number(text.data, "orphan") == 0) {
            kill_if_named((pid_t)json_number(text.data, "vmm"), id, SIGKILL);
            kill_if_named((pid_t)json_number(text.data, "virtiofsd"), id, SIGKILL);
            remove_folders(id);
        }
    }
    bytes_free(&text);
}
