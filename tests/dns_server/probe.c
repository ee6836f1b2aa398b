/* Prints each name's addresses in their order, or each address's name, by libc's resolver. */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static int by_text(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void name_of(const char *text) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    char name[NI_MAXHOST];
    inet_pton(AF_INET, text, &address.sin_addr);
    int failed = getnameinfo((struct sockaddr *)&address, sizeof address, name, sizeof name, NULL, 0,
                             NI_NAMEREQD);
    printf("%s is %s\n", text, failed ? "nobody" : name);
}

static void addresses_of(const char *name) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    char *texts[16];
    int count = 0;
    if (getaddrinfo(name, NULL, &hints, &found)) {
        printf("%s: no\n", name);
        return;
    }
    for (struct addrinfo *at = found; at && count < 16; at = at->ai_next) {
        texts[count] = malloc(NI_MAXHOST);
        getnameinfo(at->ai_addr, at->ai_addrlen, texts[count++], NI_MAXHOST, NULL, 0, NI_NUMERICHOST);
    }
    freeaddrinfo(found);
    qsort(texts, count, sizeof *texts, by_text);
    printf("%s:", name);
    for (int i = 0; i < count; i++)
        printf(" %s", texts[i]);
    printf("\n");
}

int main(int count, char **arguments) {
    struct in_addr ignored;
    for (int i = 1; i < count; i++) {
        if (inet_pton(AF_INET, arguments[i], &ignored) == 1)
            name_of(arguments[i]);
        else
            addresses_of(arguments[i]);
    }
    return 0;
}
