/* Stand-in for cloud-hypervisor, qemu-system-x86_64 and firecracker: makes a real KVM virtual machine, lets it run four
 * instructions, and then holds it until SIGTERM. Whatever runs in the pod runs beside it, not inside. */
#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define GUEST_MEMORY (16UL << 20)
#define MAX_VCPUS 8
#define CODE_AT 0x1000

static const char *name;

static void fail(const char *what) {
    fprintf(stderr, "%s (" STANDIN "): %s: %s\n", name, what, strerror(errno));
    exit(1);
}

static int need(int result, const char *what) {
    if (result < 0) fail(what);
    return result;
}

#ifdef __x86_64__
/* Runs vCPU 0 until it halts; the byte must have come out of the port before. */
static void run_guest(int vcpu, int kvm, unsigned char *memory) {
    static const unsigned char code[] = {
        0xba, 0xf8, 0x03, /* mov dx, 0x3f8 */
        0xb0, 'K',        /* mov al, 'K' */
        0xee,             /* out dx, al */
        0xf4,             /* hlt */
    };
    memcpy(memory + CODE_AT, code, sizeof code);
    size_t size = (size_t)need(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "KVM_GET_VCPU_MMAP_SIZE");
    struct kvm_run *run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
    if (run == MAP_FAILED) fail("mapping the vCPU");
    struct kvm_sregs special;
    need(ioctl(vcpu, KVM_GET_SREGS, &special), "KVM_GET_SREGS");
    special.cs.base = 0;
    special.cs.selector = 0;
    need(ioctl(vcpu, KVM_SET_SREGS, &special), "KVM_SET_SREGS");
    struct kvm_regs registers = {.rip = CODE_AT, .rflags = 2};
    need(ioctl(vcpu, KVM_SET_REGS, &registers), "KVM_SET_REGS");
    bool seen = false;
    for (;;) {
        if (ioctl(vcpu, KVM_RUN, 0) < 0 && errno != EINTR) fail("KVM_RUN");
        if (run->exit_reason == KVM_EXIT_IO && run->io.port == 0x3f8) {
            seen = ((char *)run)[run->io.data_offset] == 'K';
        } else if (run->exit_reason == KVM_EXIT_HLT && seen) {
            return;
        } else {
            errno = EIO;
            fail(path_of("the guest left with reason %u", run->exit_reason));
        }
    }
}
#else
static void run_guest(int vcpu, int kvm, unsigned char *memory) { (void)vcpu, (void)kvm, (void)memory; }
#endif

static void make_machine(void) {
    int kvm = need(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
    if (need(ioctl(kvm, KVM_GET_API_VERSION, 0), "KVM_GET_API_VERSION") != KVM_API_VERSION) {
        errno = ENOTSUP;
        fail("KVM's API version");
    }
    int machine = need(ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
#ifdef __x86_64__
    /* Needed on Intel processors without unrestricted guests; others do not mind. */
    __u64 identity = 0xfffbc000;
    ioctl(machine, KVM_SET_IDENTITY_MAP_ADDR, &identity);
    ioctl(machine, KVM_SET_TSS_ADDR, 0xfffbd000UL);
#endif
    unsigned char *memory =
        mmap(NULL, GUEST_MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) fail("the guest's memory");
    struct kvm_userspace_memory_region region = {.memory_size = GUEST_MEMORY, .userspace_addr = (__u64)(size_t)memory};
    need(ioctl(machine, KVM_SET_USER_MEMORY_REGION, &region), "KVM_SET_USER_MEMORY_REGION");
    const char *wanted = getenv("KATANODE_STANDIN_VCPUS");
    int count = wanted == NULL ? 1 : atoi(wanted);
    for (int i = 0; i == 0 || (i < count && i < MAX_VCPUS); i++) {
        int vcpu = need(ioctl(machine, KVM_CREATE_VCPU, i), "KVM_CREATE_VCPU");
        if (i == 0) run_guest(vcpu, kvm, memory);
    }
}

int main(int count, char **arguments) {
    const char *slash = strrchr(arguments[0], '/');
    name = slash == NULL ? arguments[0] : slash + 1;
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    const char *socket = NULL;
    for (int i = 1; i < count; i++) {
        if (strcmp(arguments[i], "--version") == 0 || strcmp(arguments[i], "-version") == 0) {
            printf("%s v0 (" STANDIN ")\n", name);
            return 0;
        }
        if (strcmp(arguments[i], "--api-socket") == 0 || strcmp(arguments[i], "--api-sock") == 0)
            socket = arguments[i + 1];
    }
    make_machine();
    if (socket != NULL) need(listen_unix(socket), socket);
    const char *ready = getenv("KATANODE_STANDIN_READY_FD");
    int fd = ready == NULL ? STDOUT_FILENO : atoi(ready);
    if (!write_all(fd, "ready\n", 6)) fail("saying that the machine is there");
    if (ready != NULL) close(fd);
    int number;
    sigwait(&signals, &number);
    if (socket != NULL) unlink(socket);
    return 0;
}
