//! The types a setting's value is read as, whichever way it was written.
#![forbid(unsafe_code)]

use std::marker::PhantomData;
use std::time::Duration;

use super::raw_config::{Item, RawValue};
use crate::labels::LabelValue;

/// How a raw value is read. A setting's kind in the table decides what raw values it has, so that the arms for
/// another one are not taken: a test reads every default.
pub(super) trait ValueType {
    /// What the code gets.
    type Read<'a>;

    /// Reads a raw value of this type; one of another type, which the table rules out, gives a fixed value.
    fn read(raw: &RawValue) -> Self::Read<'_>;
}

/// A setting that is one string, borrowed from the raw value.
#[derive(Debug)]
pub(super) struct Text;

/// A list of strings, each with its own place.
#[derive(Debug)]
pub(super) struct TextList;

/// A setting that is `true` or `false`.
#[derive(Debug)]
pub(super) struct Switch;

/// A number; its bounds were checked when it was read, so it fits.
#[derive(Debug)]
pub(super) struct WholeNumber;

/// A number of bytes.
#[derive(Debug)]
pub(super) struct ByteSize;

/// A time with its unit, such as `200ms` or `1h30m`.
#[derive(Debug)]
pub(super) struct TimeSpan;

/// One word of a closed list.
#[derive(Debug)]
pub(super) struct Choice<L>(PhantomData<L>);

/// One word of a closed list, or none: the default has no word.
#[derive(Debug)]
pub(super) struct OptionalChoice<L>(PhantomData<L>);

impl ValueType for Text {
    type Read<'a> = &'a str;

    fn read(raw: &RawValue) -> &str {
        match raw {
            RawValue::Text(text) => text,
            _ => "",
        }
    }
}

impl ValueType for TextList {
    type Read<'a> = &'a [Item];

    fn read(raw: &RawValue) -> &[Item] {
        match raw {
            RawValue::List(items) => items,
            _ => &[],
        }
    }
}

impl ValueType for Switch {
    type Read<'a> = bool;

    fn read(raw: &RawValue) -> bool {
        match raw {
            RawValue::Switch(on) => *on,
            _ => false,
        }
    }
}

impl ValueType for WholeNumber {
    type Read<'a> = u32;

    fn read(raw: &RawValue) -> u32 {
        match raw {
            RawValue::Number(number) => u32::try_from(*number).unwrap_or(u32::MAX),
            _ => 0,
        }
    }
}

impl ValueType for ByteSize {
    type Read<'a> = u64;

    fn read(raw: &RawValue) -> u64 {
        match raw {
            RawValue::Size(bytes) => *bytes,
            _ => 0,
        }
    }
}

impl ValueType for TimeSpan {
    type Read<'a> = Duration;

    fn read(raw: &RawValue) -> Duration {
        match raw {
            RawValue::Duration(duration) => *duration,
            _ => Duration::ZERO,
        }
    }
}

impl<L: LabelValue> ValueType for Choice<L> {
    type Read<'a> = L;

    fn read(raw: &RawValue) -> L {
        L::of_label(Text::read(raw)).unwrap_or(L::ALL[0])
    }
}

impl<L: LabelValue> ValueType for OptionalChoice<L> {
    type Read<'a> = Option<L>;

    fn read(raw: &RawValue) -> Option<L> {
        L::of_label(Text::read(raw))
    }
}
