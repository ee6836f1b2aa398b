/* deny CALL ERRNO [MASK] -- CMD…: CMD with one system call refused, as a sandbox does it.
 * MASK: only where the second argument has one of these bits. x86-64 and aarch64. */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int count, char **words)
{
    static const struct {
        const char *word;
        int number;
    } calls[] = {{"seccomp", SYS_seccomp}, {"pidfd_getfd", 438},
                 {"process_vm_readv", SYS_process_vm_readv}};
    int number = -1, command = 3;
    for (unsigned i = 0; count > 4 && i < sizeof calls / sizeof *calls; i++)
        if (strcmp(calls[i].word, words[1]) == 0)
            number = calls[i].number;
    unsigned mask = ~0u, any = 1;
    if (count > 4 && strcmp(words[3], "--") != 0) {
        mask = strtoul(words[3], NULL, 0);
        any = 0;
        command = 4;
    }
    if (number < 0 || command + 1 >= count) {
        fputs("deny CALL ERRNO [MASK] -- CMD\n", stderr);
        return 2;
    }
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 4),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, mask, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JA, any ? 0 : 1, 0, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | atoi(words[2])),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, 2, &program)) {
        perror("deny");
        return 2;
    }
    execvp(words[command + 1], words + command + 1);
    perror(words[command + 1]);
    return 127;
}
