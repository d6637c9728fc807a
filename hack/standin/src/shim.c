/* Stand-in for containerd-shim-kata-v2. It is no isolation: the pod's processes are runc's, on the host's kernel, and
 * the virtual machine beside them is empty. For tests without a network, never for pods that matter.
 *
 * `start` runs the containerd-shim-runc-v2 that belongs to the calling containerd, and becomes a daemon that stands
 * between the two (proxy.c) and keeps the sandbox's VM (sandbox.c). */
#include "proxy.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define RUNC_SHIM "containerd-shim-runc-v2"
#define DAEMON_VARIABLE "KATANODE_STANDIN_DAEMON"
#define LISTENING_FD 3

struct call {
    char **arguments;
    int count;
    const char *id, *publish_binary, *action;
    int action_at;
};

static int fail(const char *what) {
    fprintf(stderr, "katanode stand-in: %s: %s\n", what, strerror(errno));
    return 1;
}

/* The shim that belongs to the calling containerd: beside it, or on PATH. */
static const char *runc_shim(const struct call *call) {
    static char path[PATH_MAX];
    char caller[PATH_MAX];
    const char *chosen = getenv("KATANODE_STANDIN_RUNC_SHIM");
    if (chosen != NULL && *chosen != '\0') return chosen;
    if (call->publish_binary != NULL && realpath(call->publish_binary, caller) != NULL) {
        *strrchr(caller, '/') = '\0';
        snprintf(path, sizeof path, "%s", path_of("%s/" RUNC_SHIM, caller));
        if (access(path, X_OK) == 0) return path;
    }
    return RUNC_SHIM;
}

/* Runs runc's shim with this call's own arguments; what it prints goes to `output`. Its exit status, or -1. */
static int run_runc_shim(const struct call *call, struct bytes *output) {
    int out[2];
    if (pipe2(out, O_CLOEXEC) < 0) return -1;
    const char *shim = runc_shim(call);
    pid_t child = fork();
    if (child == 0) {
        /* Kata's options are on standard input, which runc's shim would not understand. */
        dup2(open("/dev/null", O_RDONLY | O_CLOEXEC), STDIN_FILENO);
        dup2(out[1], STDOUT_FILENO);
        call->arguments[0] = (char *)shim;
        execvp(shim, call->arguments);
        fail(shim);
        _exit(127);
    }
    close(out[1]);
    read_fd(out[0], output);
    close(out[0]);
    int status;
    if (child < 0 || waitpid(child, &status, 0) < 0) return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Where our socket is: beside that of runc's shim, and found again from it when a container joins its sandbox. */
static bool own_socket(const char *upstream, char *own, size_t size) {
    const char *slash = strrchr(upstream, '/');
    if (slash == NULL || strlen(slash) < 3) return false;
    snprintf(own, size, "%.*s/k%s", (int)(slash - upstream), upstream, slash + 2);
    return true;
}

/* An address ends at a quote in JSON, at the line's end, or, in the protobuf of containerd 2.3, at the next field's tag. */
static int address_length(const char *address) {
    return (int)strspn(address, "/._-0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ");
}

static void take_child(pid_t process, pid_t parent, void *child) {
    if (parent == getpid()) *(pid_t *)child = process;
}

/* What `start` answers, in the form that runc's shim chose, with our address for its. */
static void put_address(struct bytes *answer, const struct bytes *output, const char *upstream, const char *own) {
    const char *at = strstr(output->data, upstream);
    bytes_add(answer, output->data, (size_t)(at - output->data));
    bytes_format(answer, "%s%s", own, at + strlen(upstream));
}

/* The files in the bundle by which containerd 1.6 finds a shim again. */
static void mark_bundle(const char *own, pid_t process) {
    if (access("address", F_OK) == 0) write_path("address", path_of("unix://%s", own));
    if (process > 0) write_path("shim.pid", path_of("%d", process));
}

/* Becomes the daemon: this program again, with the arguments that Kata's daemon has. */
static void become_daemon(const struct call *call, int listening, const struct sandbox *sandbox) {
    char program[PATH_MAX];
    ssize_t size = readlink("/proc/self/exe", program, sizeof program - 1);
    program[size > 0 ? size : 0] = '\0';
    setenv(DAEMON_VARIABLE, path_of("%d %s %s", sandbox->shim, sandbox->upstream, sandbox->socket), 1);
    for (int i = call->action_at; i < call->count; i++) call->arguments[i] = call->arguments[i + 1];
    if (listening == LISTENING_FD) fcntl(LISTENING_FD, F_SETFD, 0);
    else dup2(listening, LISTENING_FD);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 0; fd < LISTENING_FD; fd++) dup2(null, fd);
    execv(program, call->arguments);
    _exit(127);
}

/* In the process that becomes the daemon: false if `answer` is a complaint. */
static bool prepare(const struct call *call, struct bytes *answer) {
    struct bytes output = {0};
    char *name = call->arguments[0];
    struct sandbox sandbox;
    sandbox_open(&sandbox, call->id);
    char *upstream = sandbox.upstream, *own = sandbox.socket;
    /* The daemon of runc's shim becomes our child when its `start` ends. */
    setsid();
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    if (run_runc_shim(call, &output) != 0) {
        bytes_format(answer, "%s start failed: %s", runc_shim(call), output.data);
        return false;
    }
    call->arguments[0] = name;
    const char *address = strstr(output.data, "unix://");
    if (address != NULL) snprintf(upstream, sizeof sandbox.upstream, "%.*s", address_length(address + 7), address + 7);
    if (address == NULL || !own_socket(upstream, own, sizeof sandbox.socket)) {
        bytes_format(answer, "no address in the answer of %s: %s", runc_shim(call), output.data);
        return false;
    }
    put_address(answer, &output, upstream, own);
    int served = connect_unix(own);
    if (served >= 0) {
        /* A container that joins its sandbox. */
        mark_bundle(own, 0);
        return true;
    }
    each_process(take_child, &sandbox.shim);
    int listening = listen_unix(own);
    sandbox_record(&sandbox);
    if (listening < 0 || sandbox.shim == 0) {
        bytes_free(answer);
        if (sandbox.shim > 0) kill(sandbox.shim, SIGKILL);
        sandbox_stop(&sandbox);
        bytes_format(answer, "cannot serve at %s: %s", own, strerror(errno));
        return false;
    }
    mark_bundle(own, getpid());
    write_all(STDOUT_FILENO, "+", 1);
    write_all(STDOUT_FILENO, answer->data, answer->size);
    become_daemon(call, listening, &sandbox);
    return false;
}

static int start(const struct call *call) {
    int report[2];
    struct bytes answer = {0};
    if (call->id == NULL || pipe2(report, O_CLOEXEC) < 0) return fail("start");
    pid_t child = fork();
    if (child == 0) {
        dup2(report[1], STDOUT_FILENO);
        bool good = prepare(call, &answer);
        write_all(STDOUT_FILENO, good ? "+" : "-", 1);
        write_all(STDOUT_FILENO, answer.data, answer.size);
        _exit(0);
    }
    close(report[1]);
    if (child < 0 || !read_fd(report[0], &answer)) return fail("start");
    if (answer.size > 0 && answer.data[0] == '+') return !write_all(STDOUT_FILENO, answer.data + 1, answer.size - 1);
    fprintf(stderr, "katanode stand-in: %s\n", answer.size > 0 ? answer.data + 1 : "start: no answer");
    return 1;
}

static int delete(const struct call *call) {
    struct bytes output = {0};
    if (call->id == NULL) return fail("delete");
    int status = run_runc_shim(call, &output);
    sandbox_clean(call->id);
    write_all(STDOUT_FILENO, output.data, output.size);
    return status == 0 ? 0 : 1;
}

static int daemon_main(const char *id, const char *given) {
    struct sandbox sandbox;
    sandbox_open(&sandbox, id);
    if (sscanf(given, "%d %107s %107s", &sandbox.shim, sandbox.upstream, sandbox.socket) != 3) return 1;
    unsetenv(DAEMON_VARIABLE);
    fcntl(LISTENING_FD, F_SETFD, FD_CLOEXEC);
    int log = open("log", O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    if (log >= 0) {
        const char *line = path_of("level=warning msg=\"" STANDIN "\" sandbox=%s\n", id);
        write_all(log, line, strlen(line));
        close(log);
    }
    int status = proxy_serve(&sandbox, LISTENING_FD);
    /* Runc's shim of containerd 1.6 removes the socket that the bundle's `address` names: ours. */
    unlink(sandbox.upstream);
    unlink(sandbox.socket);
    return status;
}

int main(int count, char **arguments) {
    struct call call = {.arguments = arguments, .count = count};
    for (int i = 1; i < count; i++) {
        const char *word = arguments[i];
        const char *flag = word + strspn(word, "-");
        const char *value = i + 1 < count ? arguments[i + 1] : NULL;
        if (*word != '-') {
            call.action = word;
            call.action_at = i;
        } else if (strcmp(flag, "v") == 0 || strcmp(flag, "version") == 0) {
            printf("Kata Containers containerd shim (%s): id: \"io.containerd.kata.v2\", version: %s (" STANDIN ")\n",
                   is_runtime_rs() ? "Rust" : "Golang", STANDIN_VERSION);
            return 0;
        } else if (strcmp(flag, "debug") != 0 && strcmp(flag, "info") != 0) {
            if (strcmp(flag, "id") == 0) call.id = value;
            if (strcmp(flag, "publish-binary") == 0) call.publish_binary = value;
            i++;
        }
    }
    const char *given = getenv(DAEMON_VARIABLE);
    if (given != NULL && call.action == NULL && call.id != NULL) return daemon_main(call.id, given);
    if (call.action != NULL && strcmp(call.action, "start") == 0) return start(&call);
    if (call.action != NULL && strcmp(call.action, "delete") == 0) return delete(&call);
    fputs("containerd-shim-kata-v2 (" STANDIN "): containerd starts it, with start or delete\n", stderr);
    return 1;
}
