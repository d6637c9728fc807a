/* Stand-in for virtiofsd: a process with its name and arguments that waits to be ended. */
#include "util.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

int main(int count, char **arguments) {
    if (count > 1 && strcmp(arguments[1], "--version") == 0) {
        puts("virtiofsd 0 (" STANDIN ")");
        return 0;
    }
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    int number;
    sigwait(&signals, &number);
    return 0;
}
