/* The loop of everything here, for a `struct pair` that has two sides and says whether it is `dead`, whom it
 * has `told` of an end, and knows how to `move` and to `finish`. Included after those. */

/* What both relays do with a pair: 0, or not when it is over. */
static int relay(struct pair *p)
{
    return move(p, 0) || move(p, 1) || (p->told[0] && p->told[1]);
}

/* Takes everybody who waits, calls `target` for each and has the pair made ready. (The proxy calls later.) */
__attribute__((unused)) static void call_for_all(int listener, int target, void (*ready)(struct pair *))
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
        if (ready) ready(p);
        p->side[0] = (struct side){fd, p};
        p->side[1] = (struct side){far, p};
        watch(&p->side[0]);
        watch(&p->side[1]);
    }
}

/* Gives each pair with something to do to `work` until it returns other than 0; newcomers to `meet`. */
static void serve(void (*meet)(int listener), int (*work)(struct pair *))
{
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
            if (!p) meet(door.fd);
            if (!p || p->dead || !work(p)) continue;
            finish(p);
            over[dead++] = p;
        }
        while (dead) free(over[--dead]); /* not before: a later event may name it */
    }
}
