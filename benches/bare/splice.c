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

#include "loop.h"

static int target;

static void lay_pipes(struct pair *p)
{
    for (int i = 0; i < 2; i++) {
        if (pipe2(p->pipe[i], O_NONBLOCK)) die("pipe");
        fcntl(p->pipe[i][1], F_SETPIPE_SZ, pipe_bytes);
    }
}

static void accept_all(int listener)
{
    call_for_all(listener, target, lay_pipes);
}

int main(int argc, char **argv)
{
    if (argc < 3) return 64;
    target = atoi(argv[1]);
    pipe_bytes = strtoul(argv[2], NULL, 10);
    serve(accept_all, relay);
}
