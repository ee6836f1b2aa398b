/* The bare splice relay: `splice TARGET_PORT PIPE_BYTES`. Two pipes for each pair, made at once. */
#include "relay.h"

struct pair {
    struct side side[2]; /* 0: who came, 1: whom we called */
    int pipe[2][2];
    size_t inside[2];    /* bytes in the pipe of what side i sent */
    int ended[2], told[2], dead;
};

static size_t pipe_bytes;

/* Moves what side `i` sent; 0, or -1 when the pair is over. */
static int move(struct pair *p, int i)
{
    int in = p->side[i].fd, out = p->side[!i].fd, flags = SPLICE_F_NONBLOCK | SPLICE_F_MOVE;
    for (;;) {
        while (p->inside[i]) {
            ssize_t n = splice(p->pipe[i][0], NULL, out, NULL, p->inside[i], flags);
            if (n < 0) return errno == EAGAIN || errno == ENOTCONN ? 0 : -1;
            p->inside[i] -= n;
        }
        if (p->ended[i]) {
            if (!p->told[i]) shutdown(out, SHUT_WR);
            p->told[i] = 1;
            return 0;
        }
        ssize_t n = splice(in, NULL, p->pipe[i][1], NULL, pipe_bytes, flags);
        if (n < 0) return errno == EAGAIN || errno == ENOTCONN ? 0 : -1;
        if (n == 0) p->ended[i] = 1;
        p->inside[i] += n;
    }
}

static void finish(struct pair *p)
{
    for (int i = 0; i < 2; i++) {
        close(p->side[i].fd);
        close(p->pipe[i][0]);
        close(p->pipe[i][1]);
    }
    p->dead = 1;
}

static void accept_all(int listener, int target)
{
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        int far = connect_to(target);
        if (far < 0) {
            close(fd);
            continue;
        }
        nodelay(fd);
        struct pair *p = calloc(1, sizeof *p);
        for (int i = 0; i < 2; i++) {
            if (pipe2(p->pipe[i], O_NONBLOCK)) die("pipe");
            fcntl(p->pipe[i][1], F_SETPIPE_SZ, pipe_bytes);
        }
        p->side[0] = (struct side){fd, p};
        p->side[1] = (struct side){far, p};
        watch(&p->side[0]);
        watch(&p->side[1]);
    }
}

int main(int argc, char **argv)
{
    if (argc < 3) return 64;
    pipe_bytes = strtoul(argv[2], NULL, 10);
    all_the_files();
    epoll_fd = epoll_create1(0);
    struct side door = {listen_and_tell(), NULL};
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = &door}, events[256];
    struct pair *over[256];
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, door.fd, &e);
    for (;;) {
        int n = epoll_wait(epoll_fd, events, 256, -1), dead = 0;
        for (int i = 0; i < n; i++) {
            struct side *side = events[i].data.ptr;
            struct pair *p = side->pair;
            if (!p) accept_all(door.fd, atoi(argv[1]));
            if (!p || p->dead) continue;
            if (move(p, 0) || move(p, 1) || (p->told[0] && p->told[1])) {
                finish(p);
                over[dead++] = p;
            }
        }
        while (dead) free(over[--dead]); /* not before: a later event may name it */
    }
}
