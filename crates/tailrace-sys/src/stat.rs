//! What `/proc/PID/stat` says of a process (proc(5)).

/// Ticks of its times per second (`USER_HZ`, 100 on every Linux this runs on).
pub const TICKS: f64 = 100.0;

/// The fields behind the name, which is in brackets and may hold any byte: the state, field 3, is the first.
pub fn fields(stat: &[u8]) -> Option<std::str::SplitAsciiWhitespace<'_>> {
    let behind = memchr::memrchr(b')', stat)? + 1;
    Some(std::str::from_utf8(&stat[behind..]).ok()?.split_ascii_whitespace())
}

/// Field `n` as proc(5) counts them, one that is a number.
pub fn number(stat: &[u8], n: usize) -> Option<f64> {
    fields(stat)?.nth(n.checked_sub(3)?)?.parse().ok()
}
