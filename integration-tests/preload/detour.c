/*
 * Loaded with LD_PRELOAD, sends a process's connections to loopback by way of proxies that a test has put there, each by its own: so that
 * the network between any two processes can be broken without the rights of an administrator.
 *
 *   DETOUR_FILE  lines of two ports: who connects to the first is connected to the second. It is read at each connect.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static const char *file;
static int (*next_connect)(int, const struct sockaddr *, socklen_t);

__attribute__((constructor)) static void start(void) {
    file = getenv("DETOUR_FILE");
    next_connect = (int (*)(int, const struct sockaddr *, socklen_t))dlsym(RTLD_NEXT, "connect");
    if (!next_connect) {
        fprintf(stderr, "detour: libc has no connect\n");
        abort();
    }
}

static unsigned by_way_of(unsigned port) {
    int saved = errno;
    FILE *detours = file ? fopen(file, "re") : NULL;
    unsigned from, to, found = port;
    while (detours && found == port && fscanf(detours, "%u %u", &from, &to) == 2)
        if (from == port) found = to;
    if (detours) fclose(detours);
    errno = saved;
    return found;
}

int connect(int fd, const struct sockaddr *address, socklen_t length) {
    struct sockaddr_in to;
    if (length < sizeof to || address->sa_family != AF_INET) return next_connect(fd, address, length);
    memcpy(&to, address, sizeof to);
    if (ntohl(to.sin_addr.s_addr) == INADDR_LOOPBACK) to.sin_port = htons(by_way_of(ntohs(to.sin_port)));
    return next_connect(fd, (const struct sockaddr *)&to, sizeof to);
}
