//! One JSON object, written key by key into bytes: a line for every connection must cost next to nothing.
//!
//! `serde_json` in the tests reads it back.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::escape;
use crate::labels::LabelValue;

/// An object under way.
pub(super) struct JsonObject<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl<'a> JsonObject<'a> {
    pub(super) fn open(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, first: true }
    }

    pub(super) fn close(self) {
        self.out.push(b'}');
    }

    /// Any text, escaped as JSON needs it; without a value, `null`.
    pub(super) fn add_text(&mut self, key: &str, value: Option<&str>) {
        self.add_optional(key, value, escape::write_json_string);
    }

    /// A word of our own, plain as it stands.
    pub(super) fn add_word(&mut self, key: &str, value: Option<&'static str>) {
        self.add_optional(key, value, |out, word| {
            write_quoted(out, |out| out.extend_from_slice(word.as_bytes()))
        });
    }

    /// A value of a closed list, by its word.
    pub(super) fn add_label(&mut self, key: &str, value: Option<impl LabelValue>) {
        self.add_word(key, value.map(LabelValue::label));
    }

    pub(super) fn add_number(&mut self, key: &str, value: Option<u64>) {
        self.add_optional(key, value, write_number);
    }

    /// Milliseconds, to the microsecond.
    pub(super) fn add_millis(&mut self, key: &str, value: Option<Duration>) {
        self.add_optional(key, value, |out, value| {
            write_number(out, value.as_millis().try_into().unwrap_or(u64::MAX));
            out.push(b'.');
            write_thousandths(out, value.subsec_micros() % 1000);
        });
    }

    pub(super) fn add_ip(&mut self, key: &str, value: Option<IpAddr>) {
        self.add_optional(key, value, |out, value| write_quoted(out, |out| write_ip(out, value)));
    }

    pub(super) fn add_address(&mut self, key: &str, value: SocketAddr) {
        self.add_optional(key, Some(value), |out, value| {
            write_quoted(out, |out| write_address(out, value))
        });
    }

    pub(super) fn add_time(&mut self, key: &str, now: jiff::Timestamp) {
        self.add_optional(key, Some(now), |out, now| write_quoted(out, |out| write_time(out, now)));
    }

    /// A value that is JSON already.
    pub(super) fn add_raw(&mut self, key: &str, json: impl AsRef<[u8]>) {
        self.add_with(key, |out| out.extend_from_slice(json.as_ref()));
    }

    pub(super) fn add_object(&mut self, key: &str, fill: impl FnOnce(&mut JsonObject<'_>)) {
        self.add_with(key, |out| {
            let mut inner = JsonObject::open(out);
            fill(&mut inner);
            inner.close();
        });
    }

    /// A value that `fill` writes; returns what it does.
    pub(super) fn add_with<T>(&mut self, key: &str, fill: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        if !std::mem::replace(&mut self.first, false) {
            self.out.push(b',');
        }
        // Keys are our own words.
        write_quoted(self.out, |out| out.extend_from_slice(key.as_bytes()));
        self.out.push(b':');
        fill(self.out)
    }

    /// Where there is a value `write` writes it.
    fn add_optional<T>(
        &mut self,
        key: &str,
        value: Option<T>,
        write: impl FnOnce(&mut Vec<u8>, T),
    ) {
        self.add_with(key, |out| match value {
            Some(value) => write(out, value),
            None => out.extend_from_slice(b"null"),
        });
    }
}

/// The time as RFC 3339 has it, to the millisecond.
fn write_time(out: &mut Vec<u8>, now: jiff::Timestamp) {
    /// The last second that was written: of a busy second's lines only the first works it out.
    type CachedSecond = (i64, [u8; 19]);
    thread_local!(static LAST: Cell<CachedSecond> = const { Cell::new((i64::MIN, [0; 19])) });
    if now < jiff::Timestamp::UNIX_EPOCH {
        let _ = write!(out, "{now:.3}"); // a clock that was never set
        return;
    }
    let (mut second, mut text) = LAST.get();
    if second != now.as_second() {
        second = now.as_second();
        // Up to its point or Z; jiff knows no year of more than four digits.
        text = *format!("{now:.0}").as_bytes().first_chunk().unwrap_or(&text);
        LAST.set((second, text));
    }
    out.extend_from_slice(&text);
    out.push(b'.');
    write_thousandths(out, now.subsec_millisecond().unsigned_abs());
    out.push(b'Z');
}

fn write_quoted(out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    out.push(b'"');
    fill(out);
    out.push(b'"');
}

fn write_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Writes `n`, which is below 1000, as three digits with leading zeros.
fn write_thousandths(out: &mut Vec<u8>, n: u32) {
    let digit = |of: u32| b'0' + (n / of % 10) as u8;
    out.extend_from_slice(&[digit(100), digit(10), digit(1)]);
}

fn write_ip(out: &mut Vec<u8>, ip: IpAddr) {
    let IpAddr::V4(v4) = ip else {
        // Writing to a vector cannot fail.
        let _ = write!(out, "{ip}");
        return;
    };
    for (at, octet) in v4.octets().into_iter().enumerate() {
        if at > 0 {
            out.push(b'.');
        }
        write_number(out, octet.into());
    }
}

fn write_address(out: &mut Vec<u8>, address: SocketAddr) {
    if address.is_ipv6() {
        let _ = write!(out, "{address}"); // with brackets and a scope
        return;
    }
    write_ip(out, address.ip());
    out.push(b':');
    write_number(out, address.port().into());
}

#[cfg(test)]
mod tests {
    use std::str::FromStr as _;

    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;

    fn written(fill: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        fill(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_object_reads_back() {
        let line = written(|out| {
            let mut object = JsonObject::open(out);
            object.add_text("text", Some("a\"b"));
            object.add_word("word", Some("ok"));
            object.add_word("none", None);
            object.add_number("number", Some(u64::MAX));
            object.add_millis("millis", Some(Duration::from_nanos(12_034_567_999)));
            object.add_ip("ip", Some("fd7a::1".parse().unwrap()));
            object.add_address("address", "[::1]:80".parse().unwrap());
            object.add_object("inner", |inner| inner.add_raw("list", "[1,2]"));
            object.close();
        });
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        let meant = serde_json::json!({
            "text": "a\"b", "word": "ok", "none": null, "number": u64::MAX, "millis": 12034.567,
            "ip": "fd7a::1", "address": "[::1]:80", "inner": {"list": [1, 2]},
        });
        assert_eq!(read, meant);
    }

    #[test]
    fn times_before_1970_are_written_too() {
        for millis in [-2_000, -2_500, -1] {
            let text = written(|out| write_time(out, Timestamp::from_millisecond(millis).unwrap()));
            assert_eq!(Timestamp::from_str(&text).unwrap().as_millisecond(), millis, "{text}");
        }
    }

    proptest! {
        #[test]
        fn times_are_as_jiff_writes_them(first in 0..4_000_000_000_000i64, step in 0..2_000i64) {
            for millis in [first, first + step, first] {
                let now = Timestamp::from_millisecond(millis).unwrap();
                prop_assert_eq!(written(|out| write_time(out, now)), format!("{now:.3}"));
            }
        }

        #[test]
        fn addresses_are_as_the_library_writes_them(of: SocketAddr) {
            prop_assert_eq!(written(|out| write_address(out, of)), of.to_string());
            prop_assert_eq!(written(|out| write_ip(out, of.ip())), of.ip().to_string());
        }
    }
}
