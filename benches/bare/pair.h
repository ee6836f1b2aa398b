/* Two sockets and copying between them: what the copy relay and the proxy share. */
#include "relay.h"

#define BUFFER 65536
static char buffer[BUFFER];

struct pair {
    struct side side[2];      /* 0: who came, 1: whom we called */
    char *left[2];            /* what side i sent and the other has not taken yet */
    size_t from[2], upto[2];
    int ended[2], told[2], dead, step;
};

/* Moves what side `i` sent; 0, or -1 when the pair is over. */
static int move(struct pair *p, int i)
{
    int in = p->side[i].fd, out = p->side[!i].fd;
    for (;;) {
        while (p->from[i] < p->upto[i]) {
            ssize_t n = send(out, p->left[i] + p->from[i], p->upto[i] - p->from[i], MSG_NOSIGNAL);
            if (n < 0) return errno == EAGAIN || errno == ENOTCONN ? 0 : -1;
            p->from[i] += n;
        }
        free(p->left[i]);
        p->left[i] = NULL;
        p->from[i] = p->upto[i] = 0;
        if (p->ended[i]) {
            if (!p->told[i]) shutdown(out, SHUT_WR);
            p->told[i] = 1;
            return 0;
        }
        ssize_t n = recv(in, buffer, BUFFER, 0);
        if (n < 0) return errno == EAGAIN || errno == ENOTCONN ? 0 : -1;
        if (n == 0) {
            p->ended[i] = 1;
            continue;
        }
        ssize_t m = send(out, buffer, n, MSG_NOSIGNAL);
        if (m < 0 && errno != EAGAIN && errno != ENOTCONN) return -1;
        if (m < 0) m = 0;
        if (m < n) {
            p->left[i] = malloc(n - m);
            memcpy(p->left[i], buffer + m, n - m);
            p->upto[i] = n - m;
        }
    }
}

static void finish(struct pair *p)
{
    for (int i = 0; i < 2; i++) {
        close(p->side[i].fd);
        free(p->left[i]);
    }
    p->dead = 1;
}

#include "loop.h"
