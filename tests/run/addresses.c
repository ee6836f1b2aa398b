/* What the kernel says to addresses of every length and family, and how it tells a peer's: each line is
 * the same whether the program runs by itself, towards loopback, or wrapped, towards a far host.
 *   addresses WAY IPV4 IPV6 PORT [NEAR_PORT]
 * It dies with a sentence and status 1 where something fails that must not. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SO_PEERNAME
#define SO_PEERNAME 28
#endif

static const char *host4, *host6;
static int port, near_port;
static char *closed_page, *read_only; /* the page before closed_page is open */

static void must(int holds, const char *what)
{
    if (!holds) {
        printf("%s: %s\n", what, strerror(errno));
        exit(1);
    }
}

static void say(const char *what, long result)
{
    if (result < 0)
        printf("%s errno %d\n", what, errno);
    else
        printf("%s %ld\n", what, result);
}

/* How an address is written. */
enum form { V4, V6, MAPPED, UNSPEC, STRANGE, FORMS };
static const char *const form_names[] = {"inet", "inet6", "mapped", "unspec", "strange"};

static socklen_t written(enum form form, struct sockaddr_storage *to, int number)
{
    memset(to, 0, sizeof *to);
    struct sockaddr_in *four = (void *)to;
    struct sockaddr_in6 *six = (void *)to;
    four->sin_port = htons(number); /* at the same place in both */
    if (form == V6 || form == MAPPED) {
        six->sin6_family = AF_INET6;
        if (form == V6) {
            must(inet_pton(AF_INET6, host6, &six->sin6_addr) == 1, "the IPv6 address");
            return sizeof *six;
        }
        six->sin6_addr.s6_addr[10] = six->sin6_addr.s6_addr[11] = 0xff;
        must(inet_pton(AF_INET, host4, &six->sin6_addr.s6_addr[12]) == 1, "the IPv4 address");
        return sizeof *six;
    }
    must(inet_pton(AF_INET, host4, &four->sin_addr) == 1, "the IPv4 address");
    four->sin_family = form == V4 ? AF_INET : form == UNSPEC ? AF_UNSPEC : 0xfff0;
    return sizeof *four;
}

struct kind {
    const char *name;
    int family, type, only_v6;
};
static const struct kind tcp4 = {"tcp4", AF_INET, SOCK_STREAM, 0},
                         tcp6 = {"tcp6", AF_INET6, SOCK_STREAM, 0},
                         tcp6_only = {"tcp6only", AF_INET6, SOCK_STREAM, 1},
                         udp4 = {"udp4", AF_INET, SOCK_DGRAM, 0},
                         udp6 = {"udp6", AF_INET6, SOCK_DGRAM, 0},
                         udp6_only = {"udp6only", AF_INET6, SOCK_DGRAM, 1},
                         local = {"unix", AF_UNIX, SOCK_STREAM, 0};

static int opened(const struct kind *kind)
{
    int fd = socket(kind->family, kind->type, 0), on = 1;
    must(fd >= 0, "socket");
    if (kind->only_v6)
        must(setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) == 0, "IPV6_V6ONLY");
    return fd;
}

static const int lengths[] = {INT_MIN, -1, 0, 1, 2, 4, 7, 8, 15, 16, 17, 20, 23, 24, 27, 28, 29, 128, 129, INT_MAX};
#define LENGTHS (sizeof lengths / sizeof *lengths)

static void each(const struct kind *kind, int number, int sends)
{
    char line[80];
    for (int form = 0; form < FORMS; form++)
        for (unsigned i = 0; i < LENGTHS; i++) {
            struct sockaddr_storage to;
            written(form, &to, number);
            int fd = opened(kind);
            snprintf(line, sizeof line, "%s %s %s %d", sends ? "sendto" : "connect", kind->name,
                     form_names[form], lengths[i]);
            say(line, sends ? sendto(fd, "x", 1, MSG_NOSIGNAL, (void *)&to, lengths[i])
                            : connect(fd, (void *)&to, lengths[i]));
            close(fd);
        }
}

static void strange_pointers(const struct kind *kind, enum form form, int number)
{
    struct sockaddr_storage to;
    socklen_t length = written(form, &to, number);
    int fd = opened(kind);
    memcpy(closed_page - length, &to, length);
    say("connect nowhere", connect(fd, NULL, length));
    say("connect closed", connect(fd, (void *)closed_page, length));
    say("connect half closed", connect(fd, (void *)(closed_page - length + 4), length));
    say("connect up to the end", connect(fd, (void *)(closed_page - length), length));
    say("connect again", connect(fd, (void *)&to, length));
    say("connect again, short", connect(fd, (void *)&to, 8));
    close(fd);
}

/* IPv4 by an IPv6 address on a socket for IPv6 alone, also after it was refused elsewhere. */
static void only_v6_again(void)
{
    struct sockaddr_storage to;
    int fd = opened(&tcp6_only), value = 0;
    socklen_t size = sizeof value, length = written(V6, &to, 1);
    must(connect(fd, (void *)&to, length) < 0 && errno == ECONNREFUSED, "the refusal");
    length = written(MAPPED, &to, port);
    say("mapped after a refusal", connect(fd, (void *)&to, length));
    must(getsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &value, &size) == 0, "its option");
    say("for IPv6 alone", value);
    close(fd);
}

static void connects(void)
{
    struct sockaddr_storage to;
    socklen_t length = written(V4, &to, port);
    int ends[2], listening = opened(&tcp4);
    each(&tcp4, port, 0);
    each(&tcp6, port, 0);
    each(&tcp6_only, port, 0);
    each(&local, port, 0);
    strange_pointers(&tcp4, V4, port);
    strange_pointers(&tcp6, V6, port);
    only_v6_again();
    say("no descriptor", connect(-1, (void *)&to, length));
    must(pipe(ends) == 0, "pipe");
    say("a pipe", connect(ends[0], (void *)&to, length));
    must(listen(listening, 1) == 0, "listen");
    say("a listener", connect(listening, (void *)&to, length));
    for (int i = 0; i < 4; i++) {
        static const char *const no_host[] = {"255.255.255.255", "224.0.0.1", "ff02::1", "fe80::1"};
        struct sockaddr_in *four = (void *)&to;
        struct sockaddr_in6 *six = (void *)&to;
        int fd = opened(i < 2 ? &tcp4 : &tcp6);
        length = written(i < 2 ? V4 : V6, &to, port);
        inet_pton(to.ss_family, no_host[i], i < 2 ? (void *)&four->sin_addr : &six->sin6_addr);
        say(no_host[i], connect(fd, (void *)&to, length));
        close(fd);
    }
}

static void questions(void)
{
    each(&udp4, 53, 0);
    each(&udp6, 53, 0);
    each(&udp6_only, 53, 0);
    each(&udp4, 53, 1);
    each(&udp6, 53, 1);
    each(&udp6_only, 53, 1);
}

/* What getpeername, or the option, makes of a room of that length: its result, the length it tells, how
 * many bytes it wrote, and whether they are those of `wanted`. */
static void ask(const char *what, int fd, const struct sockaddr_storage *wanted, int room, int option)
{
    unsigned char got[256];
    socklen_t length = room;
    char line[80];
    memset(got, 0xee, sizeof got);
    int done = option ? getsockopt(fd, SOL_SOCKET, SO_PEERNAME, got, &length)
                      : getpeername(fd, (void *)got, &length);
    snprintf(line, sizeof line, "%s %d tells %d", what, room, (int)length);
    say(line, done);
    int end = sizeof got;
    while (end > 0 && got[end - 1] == 0xee)
        end--;
    must(memcmp(got, wanted, end) == 0, "another address");
    printf("wrote %d\n", end);
}

static void ask_strangely(int fd, int option)
{
#define ASK(into, length) \
    (option ? getsockopt(fd, SOL_SOCKET, SO_PEERNAME, into, length) \
            : getpeername(fd, (void *)(into), length))
    struct sockaddr_storage seen;
    socklen_t *last = (void *)(closed_page - sizeof *last), length = sizeof seen;
    say("no length", ASK(&seen, NULL));
    say("a closed length", ASK(&seen, (socklen_t *)closed_page));
    say("half a length", ASK(&seen, (socklen_t *)(closed_page - 2)));
    say("a length at eight", ASK(&seen, (socklen_t *)8));
    say("a length that is read-only", ASK(&seen, (socklen_t *)read_only));
    length = 16;
    say("nowhere to", ASK(NULL, &length));
    length = 0;
    say("nowhere to, no room", ASK(NULL, &length));
    length = 16;
    say("a closed page", ASK(closed_page, &length));
    length = 16;
    say("half a closed page", ASK(closed_page - 4, &length));
    length = 16;
    say("a read-only page", ASK(read_only, &length));
    *last = 4;
    say("at the end of a page", ASK(closed_page - 8, last));
    printf("which tells %d\n", (int)*last);
}

static void name_of(const char *what, int fd, const struct sockaddr_storage *wanted)
{
    printf("%s\n", what);
    ask("name", fd, wanted, 128, 0);
}

/* In a child that has it by inheritance, and in one that was given it by a message. */
static void in_children(int fd, const struct sockaddr_storage *wanted)
{
    int pair[2], status;
    char byte = 'x', room[CMSG_SPACE(sizeof fd)] = {0};
    struct iovec piece = {&byte, 1};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = room,
                             .msg_controllen = sizeof room};
    must(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0, "socketpair");
    fflush(stdout);
    if (fork() == 0) {
        close(fd);
        must(recvmsg(pair[1], &message, 0) == 1, "recvmsg");
        memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
        name_of("given by a message", dup2(fd, 77), wanted);
        exit(0);
    }
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(head), &fd, sizeof fd);
    must(sendmsg(pair[0], &message, 0) == 1, "sendmsg");
    must(wait(&status) > 0 && status == 0, "the child that was given it");
    if (fork() == 0) {
        name_of("inherited", fd, wanted);
        exit(0);
    }
    must(wait(&status) > 0 && status == 0, "the child that inherited it");
}

static void named(const struct kind *kind, enum form form)
{
    struct sockaddr_storage to, none = {0};
    socklen_t length = written(form, &to, port);
    int fd = opened(kind);
    printf("%s by %s\n", kind->name, form_names[form]);
    ask("unconnected", fd, &none, 128, 0);
    ask("unconnected, a bad room", fd, &none, -1, 0);
    must(connect(fd, (void *)&to, length) == 0, "connect");
    if (form == V6) { /* what a peer is shown without */
        struct sockaddr_in6 *six = (void *)&to;
        six->sin6_flowinfo = six->sin6_scope_id = 0;
    }
    for (unsigned i = 0; i < LENGTHS; i++) {
        ask("name", fd, &to, lengths[i], 0);
        ask("option", fd, &to, lengths[i], 1);
    }
    ask_strangely(fd, 0);
    ask_strangely(fd, 1);
    name_of("its duplicate", dup(fd), &to);
    in_children(fd, &to);
    must(shutdown(fd, SHUT_WR) == 0, "shutdown");
    name_of("half closed", fd, &to);
    close(fd);
}

/* Disconnected, and led to another host, which is near: then it says that one. */
static void elsewhere(void)
{
    struct sockaddr_storage to, nearby = {0}, none = {.ss_family = AF_UNSPEC}, empty = {0};
    struct sockaddr_in *four = (void *)&nearby;
    socklen_t length = written(V4, &to, port);
    int fd = opened(&tcp4);
    must(connect(fd, (void *)&to, length) == 0, "connect");
    name_of("led there", fd, &to);
    must(connect(fd, (void *)&none, sizeof none) == 0, "disconnect");
    name_of("disconnected", fd, &empty);
    four->sin_family = AF_INET;
    four->sin_port = htons(near_port);
    four->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    must(connect(fd, (void *)&nearby, sizeof *four) == 0, "connect to a near one");
    name_of("led to a near one", fd, &nearby);
    close(fd);
}

/* What others accepted, listen on, or connected to each other stays what it is. */
static void others(void)
{
    struct sockaddr_storage own = {0}, client = {0}, none = {0};
    struct sockaddr_un unnamed = {.sun_family = AF_UNIX};
    socklen_t length = sizeof own;
    int listening = opened(&tcp4), from = opened(&tcp4), pair[2], ends[2];
    own.ss_family = AF_INET;
    must(bind(listening, (void *)&own, sizeof(struct sockaddr_in)) == 0, "bind");
    must(listen(listening, 1) == 0, "listen");
    must(getsockname(listening, (void *)&own, &length) == 0, "getsockname");
    ((struct sockaddr_in *)&own)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    must(connect(from, (void *)&own, length) == 0, "connect");
    int accepted = accept(listening, NULL, NULL);
    must(accepted >= 0, "accept");
    must(getsockname(from, (void *)&client, &length) == 0, "getsockname");
    name_of("the near one", from, &own);
    name_of("accepted", accepted, &client);
    ask("a listener", listening, &none, 128, 0);
    must(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0, "socketpair");
    must(pipe(ends) == 0, "pipe");
    memcpy(&none, &unnamed, sizeof unnamed.sun_family);
    ask("a pair", pair[0], &none, 128, 0);
    ask("a pipe", ends[0], &none, 128, 0);
    ask("no descriptor", -1, &none, 128, 0);
}

static void names(void)
{
    named(&tcp4, V4);
    named(&tcp6, V6);
    named(&tcp6_only, V6);
    named(&tcp6, MAPPED);
    elsewhere();
    others();
}

/* A nameserver, by TCP and on a datagram socket. */
static void nameservers(void)
{
    static const struct kind *const kinds[] = {&tcp4, &tcp6, &tcp6, &udp4, &udp6, &udp6};
    static const enum form forms[] = {V4, V6, MAPPED, V4, V6, MAPPED};
    for (int i = 0; i < 6; i++) {
        struct sockaddr_storage to, none = {0};
        socklen_t length = written(forms[i], &to, 53);
        int fd = opened(kinds[i]);
        if (kinds[i]->type == SOCK_DGRAM) {
            must(sendto(fd, "x", 1, 0, (void *)&to, length) == 1, "sendto");
            ask("only asked", fd, &none, 128, 0);
        }
        must(connect(fd, (void *)&to, length) == 0, "connect");
        name_of(kinds[i]->name, fd, &to);
        close(fd);
    }
}

/* Whoever it led to has reset it: no peer is left. Waits for the other end's word. */
static void reset(void)
{
    struct sockaddr_storage to, none = {0};
    socklen_t length = written(V4, &to, port);
    char byte;
    int fd = opened(&tcp4);
    must(connect(fd, (void *)&to, length) == 0, "connect");
    must(write(fd, "x", 1) == 1, "write");
    must(read(fd, &byte, 1) < 0 && errno == ECONNRESET, "the reset");
    ask("reset", fd, &none, 128, 0);
}

int main(int count, char **words)
{
    static const struct {
        const char *word;
        void (*way)(void);
    } ways[] = {{"connects", connects}, {"questions", questions}, {"names", names},
                {"nameservers", nameservers}, {"reset", reset}};
    setvbuf(stdout, NULL, _IOLBF, 0);
    must(count >= 5, "addresses WAY IPV4 IPV6 PORT [NEAR_PORT]");
    host4 = words[2];
    host6 = words[3];
    port = atoi(words[4]);
    near_port = count > 5 ? atoi(words[5]) : 0;
    long page = sysconf(_SC_PAGESIZE);
    char *pages = mmap(NULL, 3 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    must(pages != MAP_FAILED, "mmap");
    closed_page = pages + page;
    read_only = pages + 2 * page;
    must(mprotect(closed_page, page, PROT_NONE) == 0, "mprotect");
    *(socklen_t *)read_only = 16;
    must(mprotect(read_only, page, PROT_READ) == 0, "mprotect");
    for (unsigned i = 0; i < sizeof ways / sizeof *ways; i++)
        if (strcmp(ways[i].word, words[1]) == 0) {
            ways[i].way();
            puts("ok");
            return 0;
        }
    errno = EINVAL;
    must(0, words[1]);
}
