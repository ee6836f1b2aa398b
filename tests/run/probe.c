/* What programs do with sockets, one way per word: the tests build it with glibc and with musl.
 * It prints what it saw, "ok" in the end, or dies with a sentence and status 1. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *host;
static int port;

static void die(const char *what)
{
    printf("%s: %s\n", what, strerror(errno));
    exit(1);
}

static void must(int holds, const char *what)
{
    if (!holds)
        die(what);
}

static socklen_t address(struct sockaddr_storage *to, const char *text, int number)
{
    memset(to, 0, sizeof *to);
    struct sockaddr_in *four = (void *)to;
    struct sockaddr_in6 *six = (void *)to;
    if (inet_pton(AF_INET, text, &four->sin_addr) == 1) {
        four->sin_family = AF_INET;
        four->sin_port = htons(number);
        return sizeof *four;
    }
    must(inet_pton(AF_INET6, text, &six->sin6_addr) == 1, "no address");
    six->sin6_family = AF_INET6;
    six->sin6_port = htons(number);
    return sizeof *six;
}

static int opened(int flags)
{
    struct sockaddr_storage to;
    address(&to, host, port);
    int fd = socket(to.ss_family, SOCK_STREAM | flags, 0);
    must(fd >= 0, "socket");
    return fd;
}

static int joined(int fd)
{
    struct sockaddr_storage to;
    socklen_t length = address(&to, host, port);
    return connect(fd, (void *)&to, length);
}

/* "hello" there and back. */
static void echo(int fd)
{
    char back[6] = {0};
    must(write(fd, "hello", 5) == 5, "write");
    for (int n = 0; n < 5;) {
        struct pollfd ready = {fd, POLLIN, 0};
        int there;
        do
            there = poll(&ready, 1, 20000);
        while (there < 0 && errno == EINTR);
        must(there == 1, "poll for the echo");
        int got = read(fd, back + n, 5 - n);
        must(got > 0, "read");
        n += got;
    }
    must(strcmp(back, "hello") == 0, back);
}

static void blocking(void)
{
    int fd = opened(0);
    must(joined(fd) == 0, "connect");
    echo(fd);
}

/* Registered with epoll before connect, edge-triggered; used through a descriptor duplicated before. */
static void registered(void)
{
    int fd = opened(SOCK_NONBLOCK | SOCK_CLOEXEC), same = dup(fd), epoll = epoll_create1(0);
    struct epoll_event event = {EPOLLIN | EPOLLOUT | EPOLLET, {.fd = same}}, seen;
    must(epoll_ctl(epoll, EPOLL_CTL_ADD, same, &event) == 0, "epoll_ctl");
    must(joined(fd) == 0 || errno == EINPROGRESS, "connect");
    struct pollfd ready = {fd, POLLOUT, 0};
    must(poll(&ready, 1, 20000) == 1 && ready.revents == POLLOUT, "poll");
    int error = 1;
    socklen_t length = sizeof error;
    must(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) == 0 && error == 0, "SO_ERROR");
    must(fcntl(fd, F_GETFL) & O_NONBLOCK, "O_NONBLOCK is gone");
    must(fcntl(fd, F_GETFD) & FD_CLOEXEC, "FD_CLOEXEC is gone");
    must(epoll_wait(epoll, &seen, 1, 20000) == 1 && seen.events & EPOLLOUT, "epoll");
    close(fd);
    must(write(same, "x", 1) == 1, "write on the duplicate");
    do
        must(epoll_wait(epoll, &seen, 1, 20000) == 1, "epoll for the echo");
    while (!(seen.events & EPOLLIN));
    char back;
    must(read(same, &back, 1) == 1 && back == 'x', "read");
    /* Linux says 0 to the first of them where the kernel itself was connecting. */
    must(joined(same) == 0 || errno == EISCONN, "a second connect");
    must(joined(same) < 0 && errno == EISCONN, "a third connect");
    echo(same);
}

static void options(void)
{
    int fd = opened(0), on = 1, room = 70000, value;
    socklen_t length = sizeof value;
    struct timeval three = {3, 0}, seen;
    socklen_t size = sizeof seen;
    must(setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on) == 0, "SO_KEEPALIVE");
    must(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0, "TCP_NODELAY");
    must(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room) == 0, "SO_RCVBUF");
    must(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &three, sizeof three) == 0, "SO_SNDTIMEO");
    must(joined(fd) == 0, "connect");
    must(getsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &value, &length) == 0 && value, "no keepalive");
    must(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, &length) == 0 && value, "no nodelay");
    must(getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &value, &length) == 0 && value == 2 * room, "buffer");
    must(getsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &seen, &size) == 0 && seen.tv_sec == 3, "timeout");
    echo(fd);
}

/* Flags of the descriptor survive, whichever way the socket came to be connected. */
static void flags(void)
{
    for (int way = 0; way < 4; way++) {
        int wanted = (way & 1 ? SOCK_NONBLOCK : 0) | (way & 2 ? SOCK_CLOEXEC : 0);
        int fd = opened(wanted);
        must(joined(fd) == 0 || errno == EINPROGRESS, "connect");
        must(!(fcntl(fd, F_GETFL) & O_NONBLOCK) == !(way & 1), "O_NONBLOCK");
        must(!(fcntl(fd, F_GETFD) & FD_CLOEXEC) == !(way & 2), "FD_CLOEXEC");
        must(joined(fd) < 0 && errno == EISCONN, "a second connect");
        echo(fd);
    }
}

/* Refused first, then connected, on one socket. */
static void again(void)
{
    int fd = opened(0), good = port, error = 1;
    socklen_t length = sizeof error;
    port = 1;
    must(joined(fd) < 0 && errno == ECONNREFUSED, "the refusal");
    must(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) == 0 && error == 0, "SO_ERROR");
    port = good;
    must(joined(fd) == 0, "connect");
    echo(fd);
}

static void denied(void)
{
    int fd = opened(0);
    must(joined(fd) < 0, "connected");
    printf("errno %d\n", errno);
}

static void only_v6(void)
{
    int fd = opened(0), on = 1;
    must(setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) == 0, "IPV6_V6ONLY");
    must(joined(fd) == 0, "connect");
    echo(fd);
}

/* Bound to an address from which loopback is not reached. */
static void bound(void)
{
    int fd = opened(0);
    struct sockaddr_storage own;
    socklen_t length = address(&own, "::1", 0);
    must(bind(fd, (void *)&own, length) == 0, "bind");
    must(joined(fd) == 0, "connect");
    echo(fd);
}

static void *one(void *none)
{
    blocking();
    return none;
}

static void threads(void)
{
    pthread_t all[50];
    for (int i = 0; i < 50; i++)
        must(pthread_create(&all[i], NULL, one, NULL) == 0, "pthread_create");
    for (int i = 0; i < 50; i++)
        pthread_join(all[i], NULL);
}

static void forks(void)
{
    int go[2], status;
    must(pipe(go) == 0, "pipe");
    for (int i = 0; i < 200; i++)
        if (fork() == 0) {
            char wait;
            close(go[1]);
            must(read(go[0], &wait, 1) == 0, "the start");
            blocking();
            exit(0);
        }
    close(go[1]);
    for (int i = 0; i < 200; i++)
        must(wait(&status) > 0 && status == 0, "a child failed");
    must(wait(&status) < 0 && errno == ECHILD, "a child too many");
}

static void undumpable(void)
{
    must(prctl(PR_SET_DUMPABLE, 0) == 0, "prctl");
    int fd = opened(SOCK_NONBLOCK);
    int done = joined(fd);
    printf("errno %d\n", done == 0 ? 0 : errno);
}

static void fallbacks(void)
{
    char room[256] = {0};
    must(syscall(SYS_io_uring_setup, 4, room) < 0 && errno == ENOSYS, "io_uring_setup");
    struct sockaddr_storage to;
    socklen_t length = address(&to, host, port);
    int fd = opened(0);
    int sent = sendto(fd, "x", 1, MSG_FASTOPEN, (void *)&to, length);
    must(sent < 0 && errno == EOPNOTSUPP, "MSG_FASTOPEN");
    int on = 1;
    must(setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &on, sizeof on) == 0, "its option");
    must(joined(fd) == 0, "connect");
    echo(fd);
}

static volatile sig_atomic_t rings;

static void ring(int signal)
{
    (void)signal;
    rings++;
}

/* Signals that restart calls, all through a slow connect. */
static void interrupted(void)
{
    struct sigaction action = {.sa_handler = ring, .sa_flags = SA_RESTART};
    struct itimerval each = {{0, 2000}, {0, 2000}};
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &each, NULL);
    blocking();
    must(rings > 0, "no signal came");
}

static void local(void)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    strcpy(to.sun_path, host);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    int done = connect(fd, (void *)&to, sizeof to);
    printf("errno %d\n", done == 0 ? 0 : errno);
}

/* A question for db.corp.example, A. */
static const char question[] = "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"
                               "\x02" "db\x04" "corp\x07" "example\x00\x00\x01\x00\x01";
#define QUESTION (sizeof question - 1)

/* The answer's last four bytes are the address; its source must be the nameserver. */
static void answered(const char *answer, int length, struct sockaddr_storage *from)
{
    char shown[64];
    struct sockaddr_in *four = (void *)from;
    struct sockaddr_in6 *six = (void *)from;
    int number = ntohs(four->sin_port);
    must(length > (int)QUESTION && memcmp(answer, question, 2) == 0, "no answer");
    if (from->ss_family == AF_INET6)
        inet_ntop(AF_INET6, &six->sin6_addr, shown, sizeof shown);
    else
        inet_ntop(AF_INET, &four->sin_addr, shown, sizeof shown);
    const unsigned char *ip = (const void *)(answer + length - 4);
    printf("answer %d.%d.%d.%d from %s port %d\n", ip[0], ip[1], ip[2], ip[3], shown, number);
}

static int resolver(struct sockaddr_storage *to, socklen_t *length)
{
    *length = address(to, host, 53);
    int fd = socket(to->ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    must(fd >= 0, "socket");
    return fd;
}

static void with_recvfrom(int fd)
{
    char answer[512];
    struct sockaddr_storage from;
    socklen_t length = sizeof from;
    int got = recvfrom(fd, answer, sizeof answer, 0, (void *)&from, &length);
    must(got > 0, "recvfrom");
    answered(answer, got, &from);
}

static void with_recvmsg(int fd)
{
    char answer[512];
    struct sockaddr_storage from = {0};
    struct iovec pieces[2] = {{answer, 7}, {answer + 7, sizeof answer - 7}};
    struct msghdr message = {.msg_name = &from, .msg_namelen = sizeof from, .msg_iov = pieces,
                             .msg_iovlen = 2};
    int got = recvmsg(fd, &message, 0);
    must(got > 0 && !(message.msg_flags & MSG_TRUNC), "recvmsg");
    answered(answer, got, &from);
}

static void datagrams(void)
{
    struct sockaddr_storage to;
    socklen_t length;
    int fd = resolver(&to, &length);
    must(sendto(fd, question, QUESTION, MSG_NOSIGNAL, (void *)&to, length) == QUESTION, "sendto");
    with_recvfrom(fd);

    struct iovec pieces[2] = {{(char *)question, 5}, {(char *)question + 5, QUESTION - 5}};
    struct msghdr message = {.msg_name = &to, .msg_namelen = length, .msg_iov = pieces,
                             .msg_iovlen = 2};
    must(sendmsg(fd, &message, 0) == QUESTION, "sendmsg");
    with_recvmsg(fd);

    struct mmsghdr both[2] = {{message, 0}, {message, 0}};
    must(sendmmsg(fd, both, 2, 0) == 2 && both[1].msg_len == QUESTION, "sendmmsg");
    with_recvfrom(fd);
    with_recvmsg(fd);
    char more;
    must(recv(fd, &more, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN, "a datagram too many");
    struct sockaddr_storage from;
    socklen_t room = sizeof from;
    must(recvfrom(fd, &more, 1, MSG_DONTWAIT, (void *)&from, &room) < 0 && errno == EAGAIN, "more");
    struct timeval soon = {0, 20000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof soon);
    must(recvfrom(fd, &more, 1, 0, (void *)&from, &room) < 0 && errno == EAGAIN, "SO_RCVTIMEO");

    fd = resolver(&to, &length);
    must(connect(fd, (void *)&to, length) == 0, "connect");
    must(send(fd, question, QUESTION, 0) == QUESTION, "send");
    with_recvfrom(fd);
}

/* A datagram socket is connected, which sends nothing; one to loopback is nobody's affair. */
static void datagram(void)
{
    struct sockaddr_storage to;
    socklen_t length = address(&to, host, port);
    int fd = socket(to.ss_family, SOCK_DGRAM, 0);
    must(connect(fd, (void *)&to, length) == 0, "connect");
    length = address(&to, "127.0.0.1", 9);
    must(sendto(socket(AF_INET, SOCK_DGRAM, 0), "x", 1, 0, (void *)&to, length) == 1, "sendto");
}

static void stream_dns(void)
{
    port = 53;
    int fd = opened(0), got = 0;
    must(joined(fd) == 0, "connect");
    char asked[2 + QUESTION] = {0, QUESTION}, answer[512];
    memcpy(asked + 2, question, QUESTION);
    must(write(fd, asked, sizeof asked) == sizeof asked, "write");
    while (got < 2 || got < 2 + answer[1]) {
        int n = read(fd, answer + got, sizeof answer - got);
        must(n > 0, "read");
        got += n;
    }
    struct sockaddr_storage from;
    address(&from, host, 53);
    answered(answer + 2, got - 2, &from);
}

static void resolve(void)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_family = AF_INET}, *found;
    int failed = getaddrinfo(host, "5432", &hints, &found);
    if (failed) {
        printf("getaddrinfo: %s\n", gai_strerror(failed));
        exit(1);
    }
    char shown[64];
    inet_ntop(AF_INET, &((struct sockaddr_in *)found->ai_addr)->sin_addr, shown, sizeof shown);
    printf("%s is %s\n", host, shown);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    must(connect(fd, found->ai_addr, found->ai_addrlen) == 0, "connect");
    echo(fd);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e6 + time.tv_nsec / 1e3;
}

/* A thousand connections, and a word on each. */
static void connections(void)
{
    double start = now();
    for (int i = 0; i < 1000; i++) {
        int fd = opened(0);
        must(joined(fd) == 0, "connect");
        echo(fd);
        close(fd);
    }
    printf("us %.2f\n", (now() - start) / 1000);
}

/* The same by a program that speaks SOCKS5 itself: the gateway is given, the target is the far one. */
static void proxied(void)
{
    double start = now();
    for (int i = 0; i < 1000; i++) {
        char words[] = "\x05\x01\x00\x05\x01\x00\x01\xc6\x33\x64\x07\x00\x50", answers[12];
        int fd = opened(0);
        must(joined(fd) == 0, "connect");
        must(write(fd, words, 13) == 13, "write");
        for (int n = 0, got; n < 12; n += got)
            must((got = read(fd, answers + n, 12 - n)) > 0, "read");
        must(answers[3] == 0, "the gateway refused");
        echo(fd);
        close(fd);
    }
    printf("us %.2f\n", (now() - start) / 1000);
}

/* A hundred thousand times send, recv, write and read of a byte. */
static void bytes(void)
{
    int pair[2];
    char byte = 'x';
    must(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0, "socketpair");
    double start = now();
    for (int i = 0; i < 100000; i++) {
        must(send(pair[0], &byte, 1, 0) == 1, "send");
        must(recv(pair[1], &byte, 1, 0) == 1, "recv");
        must(write(pair[1], &byte, 1) == 1, "write");
        must(read(pair[0], &byte, 1) == 1, "read");
    }
    printf("us %.3f\n", (now() - start) / 400000);
}

/* The same number of sendmsg and recvmsg, which are looked at where names are redirected. */
static void messages(void)
{
    int pair[2];
    char byte = 'x';
    struct iovec piece = {&byte, 1};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
    must(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0, "socketpair");
    double start = now();
    for (int i = 0; i < 10000; i++) {
        must(sendmsg(pair[0], &message, 0) == 1, "sendmsg");
        must(recvmsg(pair[1], &message, 0) == 1, "recvmsg");
    }
    printf("us %.3f\n", (now() - start) / 20000);
}

/* Ten thousand times getpeername, which is looked at on every socket. */
static void peers(void)
{
    int pair[2];
    struct sockaddr_storage seen;
    must(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0, "socketpair");
    double start = now();
    for (int i = 0; i < 10000; i++) {
        socklen_t length = sizeof seen;
        must(getpeername(pair[0], (void *)&seen, &length) == 0, "getpeername");
    }
    printf("us %.3f\n", (now() - start) / 10000);
}

int main(int count, char **words)
{
    static const struct {
        const char *word;
        void (*way)(void);
    } ways[] = {
        {"blocking", blocking}, {"registered", registered}, {"options", options},
        {"flags", flags}, {"again", again}, {"denied", denied}, {"only_v6", only_v6},
        {"bound", bound}, {"threads", threads}, {"forks", forks},
        {"undumpable", undumpable}, {"fallbacks", fallbacks}, {"interrupted", interrupted},
        {"local", local}, {"datagrams", datagrams}, {"datagram", datagram}, {"stream_dns", stream_dns},
        {"resolve", resolve}, {"connections", connections}, {"proxied", proxied}, {"bytes", bytes},
        {"messages", messages}, {"peers", peers},
    };
    setvbuf(stdout, NULL, _IOLBF, 0);
    must(count >= 3, "probe WAY HOST [PORT]");
    host = words[2];
    port = count > 3 ? atoi(words[3]) : 0;
    for (unsigned i = 0; i < sizeof ways / sizeof *ways; i++)
        if (strcmp(ways[i].word, words[1]) == 0) {
            ways[i].way();
            puts("ok");
            return 0;
        }
    errno = EINVAL;
    die(words[1]);
}
