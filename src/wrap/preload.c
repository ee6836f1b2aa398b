/* The shim of `tailrace run` where seccomp user notification is not to be had: loaded into dynamic
 * programs by LD_PRELOAD (ld.so(8)), it stands before connect(2) and before the look-ups of libc.
 *
 * It is linked against nothing: what it calls it finds in the program, glibc or musl. It reads
 * TAILRACE_RUN_PROXY and, where names are redirected, TAILRACE_RUN_DNS, as 127.0.0.1:PORT. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <resolv.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* Beyond the gateway's own limit for a connection. */
#define PATIENCE_MS 60000

/* glibc's: elsewhere the resolver's state is not what libc asks by. */
extern const char *gnu_get_libc_version(void) __attribute__((weak));
extern int __res_init(void) __attribute__((weak));
extern struct __res_state *__res_state(void) __attribute__((weak));

static int given(const char *name, struct sockaddr_in *into)
{
    const char *text = getenv(name), *colon = text ? strrchr(text, ':') : NULL;
    char host[INET_ADDRSTRLEN];
    if (!colon || (size_t)(colon - text) >= sizeof host)
        return 0;
    memset(into, 0, sizeof *into);
    memcpy(host, text, colon - text);
    host[colon - text] = 0;
    into->sin_family = AF_INET;
    into->sin_port = htons(atoi(colon + 1));
    return inet_pton(AF_INET, host, &into->sin_addr) == 1;
}

static long milliseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int wait_for(int fd, short event, long until)
{
    for (;;) {
        struct pollfd ready = {fd, event, 0};
        long left = until - milliseconds();
        int got = left > 0 ? poll(&ready, 1, left) : 0;
        if (got > 0)
            return 0;
        if (got == 0 || errno != EINTR) {
            errno = got == 0 ? ETIMEDOUT : errno;
            return -1;
        }
    }
}

static int kernel_connect(int fd, const void *to, socklen_t length)
{
    return syscall(SYS_connect, fd, to, length);
}

/* Connects to a loopback port on a socket of either family. */
static int join(int fd, const struct sockaddr_in *to, long until)
{
    struct sockaddr_in6 mapped;
    const void *address = to;
    socklen_t length = sizeof *to;
    int family = 0, off = 0, tries;
    socklen_t size = sizeof family;
    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &size) < 0)
        return -1;
    if (family == AF_INET6) {
        memset(&mapped, 0, sizeof mapped);
        mapped.sin6_family = AF_INET6;
        mapped.sin6_port = to->sin_port;
        mapped.sin6_addr.s6_addr[10] = mapped.sin6_addr.s6_addr[11] = 0xff;
        memcpy(&mapped.sin6_addr.s6_addr[12], &to->sin_addr, 4);
        address = &mapped;
        length = sizeof mapped;
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    }
    for (tries = 0; tries < 2; tries++) {
        if (kernel_connect(fd, address, length) == 0)
            return 0;
        if (errno != EINPROGRESS && errno != EINTR)
            return -1;
        if (wait_for(fd, POLLOUT, until) < 0)
            return -1;
        /* The second call is told how the first one ended. */
    }
    return 0;
}

static int read_exactly(int fd, unsigned char *into, int wanted, long until)
{
    while (wanted > 0) {
        ssize_t got = recv(fd, into, wanted, MSG_DONTWAIT);
        if (got > 0) {
            into += got;
            wanted -= got;
        } else if (got == 0 || errno == ECONNRESET) {
            errno = ECONNREFUSED;
            return -1;
        } else if ((errno != EAGAIN && errno != EINTR) || wait_for(fd, POLLIN, until) < 0) {
            return -1;
        }
    }
    return 0;
}

/* RFC 1928: greeting and request at once, then the reply and not a byte more. */
static int ask(int fd, const void *address, int length, in_port_t port, long until)
{
    static const int errnos[] = {0, ECONNREFUSED, EACCES, ENETUNREACH, EHOSTUNREACH,
                                 ECONNREFUSED, ETIMEDOUT};
    unsigned char words[3 + 4 + 16 + 2] = {5, 1, 0, 5, 1, 0, length == 4 ? 1 : 4}, reply[260];
    memcpy(words + 7, address, length);
    memcpy(words + 7 + length, &port, 2);
    if (send(fd, words, 9 + length, MSG_NOSIGNAL | MSG_DONTWAIT) != 9 + length)
        return -1;
    if (read_exactly(fd, reply, 4, until) < 0)
        return -1;
    if (reply[0] != 5 || reply[1] != 0 || reply[2] != 5 || reply[3] != 0) {
        int known = reply[1] == 0 && reply[2] == 5 && reply[3] < 7;
        errno = known ? errnos[reply[3]] : ECONNREFUSED;
        return -1;
    }
    if (read_exactly(fd, reply, 3, until) < 0)
        return -1;
    /* RSV, ATYP, the first byte of the address; then the rest of it and the port. */
    int rest = reply[1] == 1 ? 3 + 2 : reply[1] == 4 ? 15 + 2 : reply[2] + 2;
    return read_exactly(fd, reply, rest, until);
}

static void forget(int fd)
{
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    int error, kept = errno;
    socklen_t length = sizeof error;
    kernel_connect(fd, &none, sizeof none);
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
    errno = kept;
}

static int is_resolver(const struct sockaddr *to, socklen_t length)
{
    static const char path[] = "/run/systemd/resolve/io.systemd.Resolve";
    const struct sockaddr_un *local = (const void *)to;
    return length >= offsetof(struct sockaddr_un, sun_path) + sizeof path - 1 &&
           memcmp(local->sun_path, path, sizeof path - 1) == 0;
}

/* Loopback, unspecified, and what never goes through a proxy. */
static int is_near(const unsigned char *v4)
{
    static const unsigned char metadata[] = {169, 254, 169, 254}, container[] = {169, 254, 170, 2};
    static const unsigned char any[4];
    return v4[0] == 127 || memcmp(v4, any, 4) == 0 || memcmp(v4, metadata, 4) == 0 ||
           memcmp(v4, container, 4) == 0;
}

int connect(int fd, const struct sockaddr *to, socklen_t length)
{
    struct sockaddr_in proxy, dns;
    const struct sockaddr_in *four = (const void *)to;
    const struct sockaddr_in6 *six = (const void *)to;
    int has_dns = given("TAILRACE_RUN_DNS", &dns), type = 0;
    socklen_t size = sizeof type;
    const unsigned char *address = NULL;
    int bytes = 4, near = 0;

    if (to && has_dns && length > 2 && to->sa_family == AF_UNIX && is_resolver(to, length)) {
        errno = ENOENT;
        return -1;
    }
    if (to && length >= sizeof *four && to->sa_family == AF_INET) {
        address = (const void *)&four->sin_addr;
        near = is_near(address);
    } else if (to && length >= sizeof *six && to->sa_family == AF_INET6) {
        address = six->sin6_addr.s6_addr;
        if (IN6_IS_ADDR_V4MAPPED(&six->sin6_addr)) {
            address += 12;
            near = is_near(address);
        } else {
            bytes = 16;
            near = IN6_IS_ADDR_LOOPBACK(&six->sin6_addr) || IN6_IS_ADDR_LINKLOCAL(&six->sin6_addr) ||
                   IN6_IS_ADDR_UNSPECIFIED(&six->sin6_addr);
        }
    }
    if (!address || !given("TAILRACE_RUN_PROXY", &proxy) ||
        getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0 || type != SOCK_STREAM)
        return kernel_connect(fd, to, length);

    long until = milliseconds() + PATIENCE_MS;
    in_port_t port = four->sin_port; /* at the same place in both */
    if (port == htons(53))
        return has_dns ? join(fd, &dns, until) : kernel_connect(fd, to, length);
    if (near || port == 0)
        return kernel_connect(fd, to, length);
    if (join(fd, &proxy, until) < 0)
        return -1;
    if (ask(fd, address, bytes, port, until) == 0)
        return 0;
    forget(fd);
    return -1;
}

/* Has glibc ask the gateway: each thread has a resolver's state of its own. */
static void redirect_names(void)
{
    struct sockaddr_in dns;
    struct __res_state *state;
    if (!gnu_get_libc_version || !__res_init || !__res_state || !given("TAILRACE_RUN_DNS", &dns))
        return;
    state = __res_state();
    if (!(state->options & RES_INIT) && __res_init() < 0)
        return;
#ifdef RES_NORELOAD
    state->options |= RES_NORELOAD;
#endif
    state->nscount = 1;
    state->nsaddr_list[0] = dns;
}

int getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                struct addrinfo **found)
{
    int (*libc)(const char *, const char *, const struct addrinfo *, struct addrinfo **) =
        dlsym(RTLD_NEXT, "getaddrinfo");
    redirect_names();
    return libc(host, service, hints, found);
}

struct hostent *gethostbyname(const char *host)
{
    struct hostent *(*libc)(const char *) = dlsym(RTLD_NEXT, "gethostbyname");
    redirect_names();
    return libc(host);
}

int gethostbyname_r(const char *host, struct hostent *into, char *room, size_t length,
                    struct hostent **found, int *error)
{
    int (*libc)(const char *, struct hostent *, char *, size_t, struct hostent **, int *) =
        dlsym(RTLD_NEXT, "gethostbyname_r");
    redirect_names();
    return libc(host, into, room, length, found, error);
}
