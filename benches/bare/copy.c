/* The bare copy relay: `copy TARGET_PORT`. One 64 kB buffer for all, leftovers kept aside. */
#include "pair.h"

static int target;

static void accept_all(int listener)
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
        p->side[0] = (struct side){fd, p};
        p->side[1] = (struct side){far, p};
        watch(&p->side[0]);
        watch(&p->side[1]);
    }
}

static int relay(struct pair *p)
{
    return move(p, 0) || move(p, 1) || (p->told[0] && p->told[1]);
}

int main(int argc, char **argv)
{
    if (argc < 2) return 64;
    target = atoi(argv[1]);
    serve(accept_all, relay);
}
