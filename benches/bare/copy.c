/* The bare copy relay: `copy TARGET_PORT`. One 64 kB buffer for all, leftovers kept aside. */
#include "pair.h"

static int target;

static void accept_all(int listener)
{
    call_for_all(listener, target, NULL);
}

int main(int argc, char **argv)
{
    if (argc < 2) return 64;
    target = atoi(argv[1]);
    serve(accept_all, relay);
}
