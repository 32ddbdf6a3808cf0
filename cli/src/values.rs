//! Values as people write them on a command line: `64MiB`, `300ms`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A number of bytes, written plain or with a unit: `67108864`, `64MiB`, `64M`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// Units from the largest, so that the first that divides evenly is the one to show.
const UNITS: [(&str, u64); 4] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<ByteSize, String> {
        let trouble = || format!("{text:?} is no size; write it like 4096, 64KiB, 16MiB or 1GiB");
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = text[..digits].parse().map_err(|_| trouble())?;
        let unit = text[digits..].trim().to_ascii_uppercase();
        let scale = match unit.trim_end_matches("IB").trim_end_matches('B') {
            "" => 1,
            "K" => 1 << 10,
            "M" => 1 << 20,
            "G" => 1 << 30,
            "T" => 1 << 40,
            _ => return Err(trouble()),
        };
        number.checked_mul(scale).map(ByteSize).ok_or_else(trouble)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().find(|(_, scale)| self.0 > 0 && self.0.is_multiple_of(*scale)) {
            Some((unit, scale)) => write!(f, "{}{unit}", self.0 / scale),
            None => write!(f, "{}B", self.0),
        }
    }
}

/// A length of time, written with a unit: `300ms`, `30s`, `1m 30s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Span, String> {
        humantime::parse_duration(text)
            .map(Span)
            .map_err(|_| format!("{text:?} is no length of time; write it like 300ms, 30s or 5m"))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

/// A length of time, or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanOrOff(pub Option<Duration>);

impl FromStr for SpanOrOff {
    type Err = String;

    fn from_str(text: &str) -> Result<SpanOrOff, String> {
        match text {
            "off" => Ok(SpanOrOff(None)),
            _ => match text.parse() {
                Ok(Span(time)) => Ok(SpanOrOff(Some(time))),
                Err(why) => Err(format!("{why}, or `off`")),
            },
        }
    }
}

impl fmt::Display for SpanOrOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(time) => Span(time).fmt(f),
            None => f.pad("off"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_units_and_shown_in_the_largest_that_fits() {
        for (text, bytes) in
            [("0", 0), ("4096", 4096), ("64MiB", 64 << 20), ("64M", 64 << 20), ("1 kb", 1024)]
        {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        assert_eq!(ByteSize(64 << 20).to_string(), "64MiB");
        assert_eq!(ByteSize(1025).to_string(), "1025B");
    }

    #[test]
    fn what_is_no_size_or_time_is_refused_with_an_example() {
        for text in ["", "MiB", "12 parsecs", "99999999TiB", "-1"] {
            assert!(text.parse::<ByteSize>().unwrap_err().contains("write it like"), "{text}");
        }
        assert!("30".parse::<Span>().unwrap_err().contains("300ms, 30s"));
        assert_eq!("1m 30s".parse(), Ok(Span(Duration::from_secs(90))));
    }

    #[test]
    fn what_can_be_off_says_so() {
        for text in ["off", "10m"] {
            assert_eq!(text.parse::<SpanOrOff>().unwrap().to_string(), text);
        }
        assert!("never".parse::<SpanOrOff>().unwrap_err().contains("or `off`"));
    }
}
