#include "proxy.h"

#include "protocol.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_CONNECTIONS 64

struct connection {
    int client, upstream;
};

struct proxy {
    struct sandbox *sandbox;
    struct connection connections[MAX_CONNECTIONS];
    size_t count;
};

static void forget(struct proxy *proxy, size_t index) {
    close(proxy->connections[index].client);
    close(proxy->connections[index].upstream);
    proxy->connections[index] = proxy->connections[--proxy->count];
}

static void welcome(struct proxy *proxy, int listening) {
    int client = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
    if (client < 0) return;
    int upstream = proxy->count < MAX_CONNECTIONS ? connect_unix(proxy->sandbox->upstream) : -1;
    if (upstream < 0) close(client);
    else proxy->connections[proxy->count++] = (struct connection){client, upstream};
}

/* Takes Kata's options out of a Create request, since runc's shim refuses them; the sandbox's own Create is the moment
 * when its VM starts. False if the request was answered here. */
static bool pass_create(struct proxy *proxy, int client, struct frame *frame) {
    struct create create;
    struct bytes error = {0};
    bool passed = true;
    if (!create_parse(frame, &create)) return true;
    if (strcmp(create.id, proxy->sandbox->id) == 0 &&
        !sandbox_start(proxy->sandbox, create.config_path, create.bundle, &error)) {
        frame_fail(client, frame, path_of("katanode stand-in: %s", error.data));
        passed = false;
    } else {
        create_rewrite(frame, &create);
    }
    bytes_free(&error);
    return passed;
}

/* One frame from containerd; false at the end of the connection. */
static bool from_client(struct proxy *proxy, struct connection *connection) {
    struct frame frame = {0};
    bool good = frame_read(connection->client, &frame);
    if (good && pass_create(proxy, connection->client, &frame)) good = frame_write(connection->upstream, &frame);
    bytes_free(&frame.payload);
    return good;
}

static bool from_upstream(struct connection *connection) {
    struct frame frame = {0};
    bool good = frame_read(connection->upstream, &frame) && frame_write(connection->client, &frame);
    bytes_free(&frame.payload);
    return good;
}

static void kill_child_of(pid_t process, pid_t parent, void *context) {
    if (parent == *(pid_t *)context) kill(process, SIGKILL);
}

/* Waits for the children that have ended; true if runc's shim is among them. */
static bool reap(struct sandbox *sandbox) {
    bool gone = false;
    for (pid_t child; (child = waitpid(-1, NULL, WNOHANG)) > 0;) {
        if (child == sandbox->shim) gone = true;
        if (child == sandbox->virtiofsd) sandbox->virtiofsd = 0;
        if (child == sandbox->vmm) {
            /* What runs in a VM ends with it. */
            sandbox->vmm = 0;
            each_process(kill_child_of, &sandbox->shim);
        }
    }
    return gone;
}

static int finish(struct proxy *proxy) {
    sandbox_stop(proxy->sandbox);
    /* The last answers. */
    while (proxy->count > 0) {
        while (from_upstream(&proxy->connections[0])) continue;
        forget(proxy, 0);
    }
    return 0;
}

int proxy_serve(struct sandbox *sandbox, int listening) {
    struct proxy proxy = {.sandbox = sandbox};
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGCHLD);
    sigaddset(&signals, SIGTERM);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    signal(SIGPIPE, SIG_IGN);
    int signaled = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    /* It may have ended before anyone listened for its signal. */
    if (reap(sandbox)) return finish(&proxy);
    for (;;) {
        struct pollfd fds[2 + 2 * MAX_CONNECTIONS] = {{signaled, POLLIN, 0}, {listening, POLLIN, 0}};
        size_t count = proxy.count;
        for (size_t i = 0; i < count; i++) {
            fds[2 + 2 * i] = (struct pollfd){proxy.connections[i].client, POLLIN, 0};
            fds[3 + 2 * i] = (struct pollfd){proxy.connections[i].upstream, POLLIN, 0};
        }
        if (poll(fds, 2 + 2 * count, -1) < 0 && errno != EINTR) return 1;
        for (struct signalfd_siginfo info; read(signaled, &info, sizeof info) > 0;)
            if (info.ssi_signo == SIGTERM) kill(sandbox->shim, SIGKILL);
        if (reap(sandbox)) return finish(&proxy);
        for (size_t i = count; i-- > 0;) {
            bool good = true;
            if (fds[2 + 2 * i].revents != 0) good = from_client(&proxy, &proxy.connections[i]);
            if (good && fds[3 + 2 * i].revents != 0) good = from_upstream(&proxy.connections[i]);
            if (!good) forget(&proxy, i);
        }
        if (fds[1].revents != 0) welcome(&proxy, listening);
    }
}
