//! Types of settings: how each is read from text and written as text.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A setting's type. Configuration files, environment variables and flags all arrive as text.
pub trait Value: Sized {
    /// What people write there, for the help text.
    const KIND: &'static str;

    /// Reads the setting.
    ///
    /// # Errors
    /// What would have been right.
    fn parse(text: &str) -> Result<Self, String>;
}

impl Value for String {
    const KIND: &'static str = "TEXT";

    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
}

impl Value for PathBuf {
    const KIND: &'static str = "PATH";

    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("a path is expected".to_owned()) } else { Ok(PathBuf::from(text)) }
    }
}

impl Value for bool {
    const KIND: &'static str = "true|false";

    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "true or false is expected".to_owned())
    }
}

impl Value for u32 {
    const KIND: &'static str = "NUMBER";

    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("a whole number from 0 to {} is expected", u32::MAX))
    }
}

impl Value for SocketAddr {
    const KIND: &'static str = "ADDRESS:PORT";

    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| {
            "an IP address and a port are expected, as in 127.0.0.1:8080 or [::]:8080".to_owned()
        })
    }
}

impl Value for Duration {
    const KIND: &'static str = "DURATION";

    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            "a duration is expected: a whole number and one of ms, s, m, h, d, as in 90s or 30d".to_owned()
        };
        let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let unit_ms: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        let ms = number.checked_mul(unit_ms).filter(|ms| *ms <= 100 * 365 * 86_400_000);
        ms.map(Duration::from_millis).ok_or_else(|| "at most 36500d is possible".to_owned())
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl Value for ByteSize {
    const KIND: &'static str = "SIZE";

    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || "a size is expected: a whole number and B, KiB, MiB or GiB, as in 64MiB".to_owned();
        let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let shift = match unit.trim_start() {
            "B" => 0,
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            _ => return Err(wrong()),
        };
        number.checked_mul(1 << shift).map(ByteSize).ok_or_else(wrong)
    }
}

/// An empty text means that the setting is not made.
impl<T: Value> Value for Option<T> {
    const KIND: &'static str = T::KIND;

    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Ok(None) } else { T::parse(text).map(Some) }
    }
}

/// Defines an enumeration of a setting's words.
macro_rules! words {
    ($(#[doc = $doc:literal])* $name:ident { $($(#[doc = $variant_doc:literal])* $variant:ident = $word:literal,)* }) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[doc = $variant_doc])* $variant,)* }

        impl Value for $name {
            const KIND: &'static str = words!(@kind $($word)*);

            fn parse(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok($name::$variant),)*
                    _ => Err(format!("one of {} is expected", [$($word),*].join(", "))),
                }
            }
        }
    };
    (@kind $first:literal $($word:literal)*) => { concat!($first, $("|", $word),*) };
}

words! {
    /// How log lines look.
    LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object a line, for log collectors.
        Json = "json",
    }
}

words! {
    /// Whether devices show certificates to the embedded MQTT endpoint.
    ClientCertificates {
        /// Devices log in by password.
        Off = "off",
        /// By certificate or by password.
        Optional = "optional",
        /// By certificate only.
        Required = "required",
    }
}
