//! The filter a wrapped program runs under: which of its system calls the supervisor sees.
//!
//! It can judge numbers, not memory: where an address is a pointer it sees whether there is one. Calls
//! of another instruction set (32-bit programs) are let pass.
#![forbid(unsafe_code)]

use tailrace_sys::seccomp::FilterInstruction;

/// `AUDIT_ARCH_*` of this build (linux/audit.h): the machine (linux/elf-em.h), 64 bits, little endian.
#[cfg(target_arch = "x86_64")]
const ARCH: Option<u32> = Some(62 | 0xc000_0000);
#[cfg(target_arch = "aarch64")]
const ARCH: Option<u32> = Some(183 | 0xc000_0000);
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ARCH: Option<u32> = None;

/// Offsets in `struct seccomp_data` (seccomp(2)).
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

/// Connects with the first bytes sent, past `connect` (tcp(7)).
const FASTOPEN: u32 = libc::MSG_FASTOPEN as u32;

/// The filter; none for an architecture it was not written for. `with_dns`: names are redirected too,
/// which takes the calls that carry an address with a datagram.
pub(super) fn call_filter(with_dns: bool) -> Option<Vec<FilterInstruction>> {
    let mut all =
        vec![load_word(ARCHITECTURE), skip_if(ARCH?, 1, 0), return_allow(), load_word(NUMBER)];
    all.extend(for_call(libc::SYS_connect, vec![return_notify()]));
    all.extend(for_call(libc::SYS_getpeername, vec![return_notify()]));
    all.extend(for_call(libc::SYS_getsockopt, notify_peer_option()));
    // Programs that find no io_uring use the calls above.
    all.extend(for_call(libc::SYS_io_uring_setup, vec![return_errno(libc::ENOSYS)]));
    let mut sendto = no_fast_open(3);
    let mut sendmsg = no_fast_open(2);
    let mut sendmmsg = no_fast_open(3);
    match with_dns {
        true => {
            sendto.extend(notify_with_pointer(4));
            sendmsg.push(return_notify());
            sendmmsg.push(return_notify());
            all.extend(for_call(libc::SYS_recvfrom, notify_with_pointer(4)));
            all.extend(for_call(libc::SYS_recvmsg, vec![return_notify()]));
        }
        false => [&mut sendto, &mut sendmsg, &mut sendmmsg]
            .into_iter()
            .for_each(|b| b.push(return_allow())),
    }
    all.extend(for_call(libc::SYS_sendto, sendto));
    all.extend(for_call(libc::SYS_sendmsg, sendmsg));
    all.extend(for_call(libc::SYS_sendmmsg, sendmmsg));
    all.push(return_allow());
    Some(all)
}

/// `body` for the system call of this number; `body` ends in a return on every way.
fn for_call(number: libc::c_long, body: Vec<FilterInstruction>) -> Vec<FilterInstruction> {
    // Both are small: numbers of calls are below 500, bodies have a few instructions.
    let mut block = vec![skip_if(number as u32, 0, body.len() as u8)];
    block.extend(body);
    block
}

/// A caller that is told so connects first.
fn no_fast_open(flags: u32) -> Vec<FilterInstruction> {
    let set = instruction(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 0, 1, FASTOPEN);
    vec![load_word(low_word(flags)), set, return_errno(libc::EOPNOTSUPP)]
}

/// To the supervisor when that argument is not null.
fn notify_with_pointer(argument: u32) -> Vec<FilterInstruction> {
    let (low, high) = (low_word(argument), low_word(argument) + 4);
    vec![
        load_word(low),
        skip_if(0, 0, 2),
        load_word(high),
        skip_if(0, 1, 0),
        return_notify(),
        return_allow(),
    ]
}

/// To the supervisor when the option asked for is the peer's address: `getsockopt(fd, level, name, …)`.
fn notify_peer_option() -> Vec<FilterInstruction> {
    let (level, name) = (libc::SOL_SOCKET as u32, libc::SO_PEERNAME as u32);
    let level = [load_word(low_word(1)), skip_if(level, 0, 3)];
    let name = [load_word(low_word(2)), skip_if(name, 0, 1)];
    [&level[..], &name, &[return_notify(), return_allow()]].concat()
}

/// The lower half of an argument, little endian.
fn low_word(argument: u32) -> u32 {
    16 + 8 * argument
}

fn load_word(offset: u32) -> FilterInstruction {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset)
}

/// Skips that many instructions when what was loaded is `value`, and so many when not.
fn skip_if(value: u32, equal: u8, not: u8) -> FilterInstruction {
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, equal, not, value)
}

fn return_notify() -> FilterInstruction {
    return_value(libc::SECCOMP_RET_USER_NOTIF)
}

fn return_allow() -> FilterInstruction {
    return_value(libc::SECCOMP_RET_ALLOW)
}

fn return_errno(errno: i32) -> FilterInstruction {
    return_value(libc::SECCOMP_RET_ERRNO | errno.cast_unsigned())
}

fn return_value(what: u32) -> FilterInstruction {
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, what)
}

fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> FilterInstruction {
    FilterInstruction { code: code as u16, jt, jf, k }
}

#[cfg(test)]
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod tests {
    use super::*;

    /// What the kernel would do with a call: the few instructions the filter is made of.
    fn judged(
        filter: &[FilterInstruction],
        arch: u32,
        number: libc::c_long,
        arguments: [u64; 6],
    ) -> u32 {
        let mut data = Vec::new();
        data.extend((number as u32).to_le_bytes());
        data.extend(arch.to_le_bytes());
        data.extend([0; 8]);
        arguments.iter().for_each(|a| data.extend(a.to_le_bytes()));
        let (mut at, mut loaded) = (0, 0_u32);
        loop {
            let FilterInstruction { code, jt, jf, k } = filter[at];
            at += 1;
            let code = u32::from(code);
            let holds = if code == libc::BPF_LD | libc::BPF_ABS {
                let offset = k as usize;
                loaded = u32::from_le_bytes(data[offset..offset + 4].try_into().unwrap());
                continue;
            } else if code == libc::BPF_RET {
                return k;
            } else if code == libc::BPF_JMP | libc::BPF_JEQ {
                loaded == k
            } else {
                assert_eq!(code, libc::BPF_JMP | libc::BPF_JSET);
                loaded & k != 0
            };
            at += usize::from(if holds { jt } else { jf });
        }
    }

    #[test]
    fn only_calls_with_an_address_are_seen() {
        let (arch, fast) = (ARCH.unwrap(), u64::from(FASTOPEN));
        let errno = |errno: i32| libc::SECCOMP_RET_ERRNO | errno.cast_unsigned();
        let (notify, allow) = (libc::SECCOMP_RET_USER_NOTIF, libc::SECCOMP_RET_ALLOW);
        let filters = [call_filter(false).unwrap(), call_filter(true).unwrap()];
        let cases = [
            (libc::SYS_connect, [0; 6], notify, notify),
            (libc::SYS_io_uring_setup, [0; 6], errno(libc::ENOSYS), errno(libc::ENOSYS)),
            (libc::SYS_sendto, [0; 6], allow, allow),
            (libc::SYS_sendto, [0, 0, 0, 0, 1 << 40, 0], allow, notify),
            (libc::SYS_sendto, [0, 0, 0, 0, 8, 0], allow, notify),
            (
                libc::SYS_sendto,
                [0, 0, 0, fast, 8, 0],
                errno(libc::EOPNOTSUPP),
                errno(libc::EOPNOTSUPP),
            ),
            (libc::SYS_sendmsg, [0; 6], allow, notify),
            (
                libc::SYS_sendmsg,
                [0, 0, fast, 0, 0, 0],
                errno(libc::EOPNOTSUPP),
                errno(libc::EOPNOTSUPP),
            ),
            (libc::SYS_sendmmsg, [0; 6], allow, notify),
            (libc::SYS_recvfrom, [0; 6], allow, allow),
            (libc::SYS_recvfrom, [0, 0, 0, 0, 1 << 32, 8], allow, notify),
            (libc::SYS_recvmsg, [0; 6], allow, notify),
            (libc::SYS_getpeername, [0; 6], notify, notify),
            (libc::SYS_getsockopt, [0, 1, 28, 0, 0, 0], notify, notify),
            (libc::SYS_getsockopt, [0, 1, 4, 0, 0, 0], allow, allow),
            (libc::SYS_getsockopt, [0, 6, 28, 0, 0, 0], allow, allow),
            (libc::SYS_read, [1; 6], allow, allow),
            (libc::SYS_write, [1; 6], allow, allow),
            (libc::SYS_accept4, [1; 6], allow, allow),
        ];
        for (number, arguments, without, with) in cases {
            assert_eq!(judged(&filters[0], arch, number, arguments), without, "{number}");
            assert_eq!(judged(&filters[1], arch, number, arguments), with, "{number} with DNS");
            assert_eq!(judged(&filters[1], 3, number, arguments), allow, "another architecture");
        }
    }
}
