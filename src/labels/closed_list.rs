//! How a closed list is declared: an enum whose values have one word each.
#![forbid(unsafe_code)]

use std::fmt;
use std::marker::PhantomData;

use serde::de;

/// One word of a closed list.
pub trait LabelValue: Copy + Eq + 'static {
    /// Every value of the list, in the order in which they are declared.
    const ALL: &'static [Self];

    /// Every word, in the same order.
    const WORDS: &'static [&'static str];

    /// The word in the log, in metrics and in JSON.
    fn label(self) -> &'static str;

    /// Where the value stands in [`LabelValue::ALL`].
    fn index(self) -> usize;

    /// The value of a word; `None` for a word that is not of the list.
    fn of_label(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|value| value.label() == word)
    }
}

/// Declares a closed list: the enum, its words, and both directions of serde by them.
macro_rules! closed_list {
    ($(#[$about:meta])* $name:ident { $($(#[$meaning:meta])* $value:ident = $word:literal,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name {
            $($(#[$meaning])* $value,)+
        }

        impl $name {
            /// Every value, in the order of the declaration.
            pub const ALL: [Self; [$(Self::$value),+].len()] = [$(Self::$value),+];

            /// The word in the log, in metrics and in JSON.
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$value => $word,)+
                }
            }
        }

        impl $crate::labels::LabelValue for $name {
            const ALL: &'static [Self] = &Self::ALL;
            const WORDS: &'static [&'static str] = &[$($word),+];

            fn label(self) -> &'static str {
                self.label()
            }

            fn index(self) -> usize {
                self as usize
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.label())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.label())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str($crate::labels::ValueVisitor::<Self>::default())
            }
        }
    };
}

pub(crate) use closed_list;

/// Finds a value of a closed list by its word.
pub(crate) struct ValueVisitor<L>(PhantomData<L>);

impl<L> Default for ValueVisitor<L> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<L: LabelValue> de::Visitor<'_> for ValueVisitor<L> {
    type Value = L;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<_> = L::ALL.iter().map(|value| value.label()).collect();
        write!(f, "one of {}", words.join(", "))
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<L, E> {
        L::of_label(word).ok_or_else(|| E::invalid_value(de::Unexpected::Str(word), &self))
    }
}
