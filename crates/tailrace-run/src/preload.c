/* The shim of `tailrace run` where seccomp user notification is not to be had: loaded into dynamic
 * programs by LD_PRELOAD (ld.so(8)), it stands before connect(2), before getpeername(2), which tells
 * where the program asked to go, and before the look-ups of libc.
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
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
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

static int kernel_option(int fd, int level, int name, void *into, socklen_t *length)
{
    return syscall(SYS_getsockopt, fd, level, name, into, length);
}

/* An option that is a number; -1 where there is none such. */
static int option(int fd, int level, int name)
{
    int value = 0;
    socklen_t size = sizeof value;
    return kernel_option(fd, level, name, &value, &size) < 0 ? -1 : value;
}

/* Whether that memory can be read. The kernel looks at the set before it refuses the first argument
 * (sigprocmask(2)); eight bytes from a multiple of eight lie on one page. */
static int is_readable(const void *memory, size_t length)
{
    uintptr_t at = (uintptr_t)memory & ~(uintptr_t)7, end = (uintptr_t)memory + length;
    int kept = errno, holds = end >= (uintptr_t)memory;
    for (; holds && at < end; at += 8) {
        errno = 0;
        syscall(SYS_rt_sigprocmask, ~0, at, NULL, 8);
        holds = errno != EFAULT && at != 0;
    }
    errno = kept;
    return holds;
}

/* Where the sockets that lead to the gateway were to go, by inode: the last ones. A writer takes the
 * next place of the ring; a reader that finds its number odd, or changed, passes on. No lock: a signal
 * handler may connect. */
#define MOST_CARRIED 4096
static struct carried {
    unsigned turn;
    ino_t inode;
    sa_family_t family; /* 0: it leads nowhere else any more */
    in_port_t port;
    unsigned char ip[16]; /* IPv4: the first four */
} carried[MOST_CARRIED];
static unsigned long turns;

static ino_t inode_of(int fd)
{
    struct stat seen;
    int kept = errno;
    /* A libc older than the one this was built with may have no fstat to be found. */
    ino_t inode = syscall(SYS_fstat, fd, &seen) == 0 ? seen.st_ino : 0;
    errno = kept;
    return inode;
}

static void remember(int fd, sa_family_t family, const void *ip, in_port_t port)
{
    struct carried one = {.inode = inode_of(fd), .family = family, .port = port};
    if (ip)
        memcpy(one.ip, ip, family == AF_INET ? 4 : 16);
    struct carried *place =
        &carried[__atomic_fetch_add(&turns, 1, __ATOMIC_RELAXED) % MOST_CARRIED];
    one.turn = __atomic_fetch_add(&place->turn, 1, __ATOMIC_ACQ_REL) + 1;
    memcpy(&place->inode, &one.inode, sizeof one - offsetof(struct carried, inode));
    __atomic_store_n(&place->turn, one.turn + 1, __ATOMIC_RELEASE);
}

/* The latest word on a socket. */
static int recall(int fd, struct carried *into)
{
    unsigned long last = __atomic_load_n(&turns, __ATOMIC_ACQUIRE), back;
    ino_t inode = last ? inode_of(fd) : 0;
    for (back = 1; inode && back <= last && back <= MOST_CARRIED; back++) {
        struct carried *place = &carried[(last - back) % MOST_CARRIED];
        unsigned turn = __atomic_load_n(&place->turn, __ATOMIC_ACQUIRE);
        memcpy(into, place, sizeof *into);
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        if (turn % 2 == 0 && turn == __atomic_load_n(&place->turn, __ATOMIC_RELAXED) &&
            into->inode == inode)
            return into->family != 0;
    }
    return 0;
}

/* Connects to a loopback port on a socket of either family. */
static int join(int fd, const struct sockaddr_in *to, long until)
{
    struct sockaddr_in6 mapped;
    const void *address = to;
    socklen_t length = sizeof *to;
    int off = 0, tries;
    if (option(fd, SOL_SOCKET, SO_DOMAIN) == AF_INET6) {
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
    int kept = errno;
    kernel_connect(fd, &none, sizeof none);
    option(fd, SOL_SOCKET, SO_ERROR); /* read, it is over */
    errno = kept;
}

static int is_resolver(const struct sockaddr *to, socklen_t length)
{
    static const char path[] = "/run/systemd/resolve/io.systemd.Resolve";
    const struct sockaddr_un *local = (const void *)to;
    return length >= offsetof(struct sockaddr_un, sun_path) + sizeof path - 1 &&
           memcmp(local->sun_path, path, sizeof path - 1) == 0;
}

/* Loopback, unspecified, multicast, broadcast, and what never goes through a proxy. */
static int is_near(const unsigned char *v4)
{
    static const unsigned char metadata[] = {169, 254, 169, 254}, container[] = {169, 254, 170, 2};
    static const unsigned char any[4], broadcast[] = {255, 255, 255, 255};
    return v4[0] == 127 || v4[0] >> 4 == 14 || memcmp(v4, any, 4) == 0 ||
           memcmp(v4, broadcast, 4) == 0 || memcmp(v4, metadata, 4) == 0 ||
           memcmp(v4, container, 4) == 0;
}

/* Whether the kernel takes an address of this family on this TCP socket. What it does not take is its
 * to refuse: EAFNOSUPPORT, or ENETUNREACH for IPv4 on a socket that is for IPv6 alone. */
static int is_tcp_of(int fd, sa_family_t family, int mapped)
{
    int protocol = option(fd, SOL_SOCKET, SO_PROTOCOL);
    return option(fd, SOL_SOCKET, SO_TYPE) == SOCK_STREAM &&
           (protocol == IPPROTO_TCP || protocol == 262 /* IPPROTO_MPTCP */) &&
           option(fd, SOL_SOCKET, SO_DOMAIN) == family &&
           !(mapped && option(fd, IPPROTO_IPV6, IPV6_V6ONLY) == 1);
}

/* An IPv4 or IPv6 address as a program gave it, one that is IPv4-mapped as IPv4. */
struct asked {
    const unsigned char *ip;
    int bytes, mapped, near;
    sa_family_t family;
    in_port_t port;
};

/* Reads one; 0 for what is none, or not whole. */
static int parsed(const struct sockaddr *to, socklen_t length, struct asked *into)
{
    const struct sockaddr_in *four = (const void *)to;
    const struct sockaddr_in6 *six = (const void *)to;
    memset(into, 0, sizeof *into);
    into->port = four->sin_port; /* at the same place in both */
    into->family = AF_INET;
    into->bytes = 4;
    if (to->sa_family == AF_INET && length >= sizeof *four) {
        into->ip = (const void *)&four->sin_addr;
        into->near = is_near(into->ip);
        return 1;
    }
    /* The kernel takes an IPv6 address without its scope (SIN6_LEN_RFC2133). */
    if (to->sa_family != AF_INET6 || length < offsetof(struct sockaddr_in6, sin6_scope_id))
        return 0;
    into->ip = six->sin6_addr.s6_addr;
    into->mapped = IN6_IS_ADDR_V4MAPPED(&six->sin6_addr);
    if (into->mapped) {
        into->ip += 12;
        into->near = is_near(into->ip);
        return 1;
    }
    into->family = AF_INET6;
    into->bytes = 16;
    into->near = IN6_IS_ADDR_LOOPBACK(&six->sin6_addr) || IN6_IS_ADDR_LINKLOCAL(&six->sin6_addr) ||
                 IN6_IS_ADDR_UNSPECIFIED(&six->sin6_addr) || IN6_IS_ADDR_MULTICAST(&six->sin6_addr);
    return 1;
}

/* Connects through the gateway. */
static int carry(int fd, const struct sockaddr_in *proxy, const struct asked *asked, long until)
{
    int only_v6 = asked->bytes == 16 && option(fd, IPPROTO_IPV6, IPV6_V6ONLY) == 1, kept;
    if (join(fd, proxy, until) == 0) {
        if (ask(fd, asked->ip, asked->bytes, asked->port, until) == 0) {
            remember(fd, asked->family, asked->ip, asked->port);
            return 0;
        }
        forget(fd);
    }
    kept = errno;
    if (only_v6) /* taken back to reach the gateway */
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only_v6, sizeof only_v6);
    errno = kept;
    return -1;
}

int connect(int fd, const struct sockaddr *to, socklen_t length)
{
    struct sockaddr_in proxy, dns;
    struct asked asked;
    int has_dns = given("TAILRACE_RUN_DNS", &dns);

    if (length < sizeof to->sa_family || length > sizeof(struct sockaddr_storage) ||
        !is_readable(to, length))
        return kernel_connect(fd, to, length);
    if (has_dns && to->sa_family == AF_UNIX && is_resolver(to, length)) {
        errno = ENOENT;
        return -1;
    }
    if (!parsed(to, length, &asked) || !given("TAILRACE_RUN_PROXY", &proxy) ||
        !is_tcp_of(fd, to->sa_family, asked.mapped))
        return kernel_connect(fd, to, length);

    long until = milliseconds() + PATIENCE_MS;
    if (asked.port == htons(53) && has_dns) {
        if (join(fd, &dns, until) < 0)
            return -1;
        remember(fd, asked.family, asked.ip, asked.port);
        return 0;
    }
    if (asked.bytes == 4 && asked.port == proxy.sin_port &&
        memcmp(asked.ip, &proxy.sin_addr, 4) == 0) {
        remember(fd, 0, NULL, 0); /* it leads where it says, whatever it was before */
        return kernel_connect(fd, to, length);
    }
    if (asked.near || asked.port == 0 || asked.port == htons(53))
        return kernel_connect(fd, to, length);
    return carry(fd, &proxy, &asked, until);
}

/* Where fd leads, as the program may see it, in `into`; its length, or 0 for a socket that leads to
 * where it says. */
static socklen_t asked_to_go(int fd, void *into)
{
    struct sockaddr_storage seen;
    const struct sockaddr_in *four = (const void *)&seen;
    const struct sockaddr_in6 *six = (const void *)&seen;
    struct sockaddr_in proxy, dns;
    struct carried known;
    socklen_t length = sizeof seen;
    in_port_t port;
    if (syscall(SYS_getpeername, fd, &seen, &length) < 0)
        return 0;
    /* It leads to the gateway still: it may have been disconnected and connected anew. */
    const void *ip = seen.ss_family == AF_INET ? (const void *)&four->sin_addr : &six->sin6_addr.s6_addr[12];
    if (seen.ss_family != AF_INET &&
        !(seen.ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&six->sin6_addr)))
        return 0;
    port = four->sin_port;
    if (!(given("TAILRACE_RUN_PROXY", &proxy) && port == proxy.sin_port &&
          memcmp(ip, &proxy.sin_addr, 4) == 0) &&
        !(given("TAILRACE_RUN_DNS", &dns) && port == dns.sin_port &&
          memcmp(ip, &dns.sin_addr, 4) == 0))
        return 0;
    if (!recall(fd, &known))
        return 0;
    if (seen.ss_family == AF_INET) {
        struct sockaddr_in shown = {.sin_family = AF_INET, .sin_port = known.port};
        if (known.family != AF_INET)
            return 0;
        memcpy(&shown.sin_addr, known.ip, 4);
        memcpy(into, &shown, sizeof shown);
        return sizeof shown;
    }
    struct sockaddr_in6 shown = {.sin6_family = AF_INET6, .sin6_port = known.port};
    if (known.family == AF_INET6) {
        memcpy(&shown.sin6_addr, known.ip, 16);
    } else {
        shown.sin6_addr.s6_addr[10] = shown.sin6_addr.s6_addr[11] = 0xff;
        memcpy(&shown.sin6_addr.s6_addr[12], known.ip, 4);
    }
    memcpy(into, &shown, sizeof shown);
    return sizeof shown;
}

/* The kernel judges the pointers and writes an address of the same length; ours goes in its place. */
int getpeername(int fd, struct sockaddr *into, socklen_t *length)
{
    struct sockaddr_storage shown;
    int kept = errno;
    socklen_t whole = asked_to_go(fd, &shown), room;
    errno = kept;
    if (whole == 0 || !is_readable(length, sizeof *length))
        return syscall(SYS_getpeername, fd, into, length);
    room = *length;
    if (syscall(SYS_getpeername, fd, into, length) < 0)
        return -1;
    memcpy(into, &shown, room < whole ? room : whole);
    return 0;
}

/* The same by an option. */
int getsockopt(int fd, int level, int name, void *into, socklen_t *length)
{
    struct sockaddr_storage shown;
    int done = kernel_option(fd, level, name, into, length), kept = errno;
    if (done == 0 && level == SOL_SOCKET && name == 28 /* SO_PEERNAME */) {
        socklen_t whole = asked_to_go(fd, &shown);
        memcpy(into, &shown, *length < whole ? *length : whole);
        errno = kept;
    }
    return done;
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
