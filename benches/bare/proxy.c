/* The bare proxy: `proxy TARGET_PORT`. The copy relay behind the least that a SOCKS5 or CONNECT handshake
 * and one with a SOCKS5 server take: no pool, nothing checked, nothing recorded, every head taken to come
 * in one piece. What is below it cannot be had by anybody who shakes hands. */
#include "pair.h"

enum { GREETING, REQUEST, REPLY, REPLY_CONNECT, RELAY };

static int target;

static void accept_all(int listener)
{
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        nodelay(fd);
        struct pair *p = calloc(1, sizeof *p);
        p->side[0] = (struct side){fd, p};
        p->side[1] = (struct side){-1, p};
        watch(&p->side[0]);
    }
}

/* Says `n` bytes to one side in one piece; 0, or -1 when the pair is over. */
static int say(struct pair *p, int i, const void *bytes, ssize_t n)
{
    return send(p->side[i].fd, bytes, n, MSG_NOSIGNAL) == n ? 0 : -1;
}

/* Greets and asks in one segment. */
static int ask(struct pair *p, const void *request, ssize_t n)
{
    static char segment[3 + 512] = {5, 1, 0};
    memcpy(segment + 3, request, n);
    p->side[1].fd = connect_to(target);
    if (p->side[1].fd < 0 || say(p, 1, segment, 3 + n)) return -1;
    watch(&p->side[1]);
    p->step = p->step == GREETING ? REPLY_CONNECT : REPLY;
    return 0;
}

/* CONNECT NAME:PORT as a SOCKS5 request. */
static int ask_connect(struct pair *p)
{
    unsigned char request[5 + 255 + 2] = {5, 1, 0, 3};
    char *name = (char *)request + 5;
    unsigned port;
    if (sscanf(buffer, "CONNECT %255[^:]:%u ", name, &port) != 2) return -1;
    size_t length = strlen(name);
    request[4] = length;
    name[length] = port >> 8;
    name[length + 1] = port;
    return ask(p, request, 5 + length + 2);
}

static int shake_or_relay(struct pair *p)
{
    static const char yes[] = "HTTP/1.1 200 OK\r\n\r\n";
    int asked = p->step == REPLY || p->step == REPLY_CONNECT, by_connect = p->step == REPLY_CONNECT;
    if (p->step == RELAY) return relay(p);
    ssize_t n = recv(p->side[asked].fd, buffer, 512, 0);
    if (n <= 0) return n < 0 && errno == EAGAIN ? 0 : -1;
    if (asked && n == 2) return 0; /* the choice of method came alone */
    switch (p->step) {
    case GREETING:
        buffer[n] = 0;
        if (buffer[0] == 'C') return ask_connect(p);
        p->step = REQUEST;
        return say(p, 0, "\5", 2);
    case REQUEST:
        return ask(p, buffer, n);
    default:
        p->step = RELAY;
        return by_connect ? say(p, 0, yes, sizeof yes - 1) : say(p, 0, n > 10 ? buffer + 2 : buffer, 10);
    }
}

int main(int argc, char **argv)
{
    if (argc < 2) return 64;
    target = atoi(argv[1]);
    serve(accept_all, shake_or_relay);
}
