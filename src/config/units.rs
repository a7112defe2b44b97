//! Durations and sizes as people write them.
//!
//! Durations are Go's (`1h30m`, `250ms`, `1.5s`, `0`), because the files of the original program
//! hold them. Sizes: `K M G` and `KB MB GB` are powers of 1000, `KiB MiB GiB` powers of 1024, a bare
//! number is bytes; case does not matter. Pure functions on text, exact in integers: no floating
//! point, no rounding except that what is smaller than a nanosecond or a byte is cut off.

use std::time::Duration;

/// Why a text is not a duration or a size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    #[error("no number")]
    NoNumber,
    #[error("no unit")]
    NoUnit,
    #[error("unknown unit")]
    UnknownUnit,
    #[error("negative")]
    Negative,
    #[error("too large")]
    TooLarge,
}

/// Go's `time.ParseDuration`, without negative durations; the longest is Go's, about 292 years.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    if text.starts_with('-') {
        return Err(UnitError::Negative);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(UnitError::NoNumber);
    }
    let mut nanos: u64 = 0;
    while !rest.is_empty() {
        let (number, after) = Decimal::split_from(rest)?;
        let end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let part = number.times(nanos_in(unit)?)?;
        nanos = nanos.checked_add(part).filter(|sum| *sum <= i64::MAX as u64).ok_or(UnitError::TooLarge)?;
        rest = after;
    }
    Ok(Duration::from_nanos(nanos))
}

/// A number of bytes.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    if text.starts_with('-') {
        return Err(UnitError::Negative);
    }
    let (number, unit) = Decimal::split_from(text)?;
    number.times(bytes_in(unit.trim_start())?)
}

fn nanos_in(unit: &str) -> Result<u64, UnitError> {
    Ok(match unit {
        "ns" => 1,
        // Both characters that Unicode has for "micro".
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60 * 1_000_000_000,
        "h" => 3600 * 1_000_000_000,
        "" => return Err(UnitError::NoUnit),
        _ => return Err(UnitError::UnknownUnit),
    })
}

fn bytes_in(unit: &str) -> Result<u64, UnitError> {
    Ok(match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return Err(UnitError::UnknownUnit),
    })
}

/// A decimal number as its digits before and after the point.
struct Decimal<'a> {
    whole: &'a str,
    fraction: &'a str,
}

impl<'a> Decimal<'a> {
    /// The number that `text` begins with, and the rest.
    fn split_from(text: &'a str) -> Result<(Self, &'a str), UnitError> {
        let (whole, rest) = split_digits(text);
        let (fraction, rest) = match rest.strip_prefix('.') {
            Some(rest) => split_digits(rest),
            None => ("", rest),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(UnitError::NoNumber);
        }
        Ok((Decimal { whole, fraction }, rest))
    }

    /// The product with `unit`, cut off to a whole number.
    fn times(&self, unit: u64) -> Result<u64, UnitError> {
        let whole: u64 = match self.whole {
            "" => 0,
            digits => digits.parse().map_err(|_| UnitError::TooLarge)?,
        };
        // The largest unit is 3.6e12: digits past the 18th cannot move the result by one.
        let fraction = self.fraction.get(..18).unwrap_or(self.fraction);
        let (mut numerator, mut denominator) = (0u128, 1u128);
        for digit in fraction.bytes() {
            numerator = numerator * 10 + u128::from(digit - b'0');
            denominator *= 10;
        }
        let part =
            u64::try_from(numerator * u128::from(unit) / denominator).map_err(|_| UnitError::TooLarge)?;
        whole.checked_mul(unit).and_then(|product| product.checked_add(part)).ok_or(UnitError::TooLarge)
    }
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_gos() {
        let cases = [
            ("0", Ok(0)),
            ("0s", Ok(0)),
            ("+5s", Ok(5_000_000_000)),
            ("1h30m", Ok(5_400_000_000_000)),
            ("250ms", Ok(250_000_000)),
            ("1.5s", Ok(1_500_000_000)),
            (".5s", Ok(500_000_000)),
            ("1.s", Ok(1_000_000_000)),
            ("1us1\u{b5}s1\u{3bc}s1ns", Ok(3_001)),
            ("0.9999999999ns", Ok(0)),
            ("9223372036854775807ns", Ok(i64::MAX as u64)),
            ("9223372036854775808ns", Err(UnitError::TooLarge)),
            ("99999999999999999999h", Err(UnitError::TooLarge)),
            ("9000000000000h", Err(UnitError::TooLarge)),
            ("-5s", Err(UnitError::Negative)),
            ("5", Err(UnitError::NoUnit)),
            ("1h5", Err(UnitError::NoUnit)),
            ("5S", Err(UnitError::UnknownUnit)),
            ("5 s", Err(UnitError::UnknownUnit)),
            ("5d", Err(UnitError::UnknownUnit)),
            ("", Err(UnitError::NoNumber)),
            ("+", Err(UnitError::NoNumber)),
            ("s", Err(UnitError::NoNumber)),
            (".s", Err(UnitError::NoNumber)),
            ("soon", Err(UnitError::NoNumber)),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_duration(text), expected.map(Duration::from_nanos), "{text:?}");
        }
    }

    #[test]
    fn sizes_are_decimal_or_binary_by_their_unit() {
        let cases = [
            ("0", Ok(0)),
            ("123", Ok(123)),
            ("123B", Ok(123)),
            ("1K", Ok(1_000)),
            ("1KB", Ok(1_000)),
            ("1KiB", Ok(1_024)),
            ("100M", Ok(100_000_000)),
            ("100MB", Ok(100_000_000)),
            ("100mb", Ok(100_000_000)),
            ("1MiB", Ok(1_048_576)),
            ("1 GiB", Ok(1_073_741_824)),
            ("1.5GiB", Ok(1_610_612_736)),
            ("2G", Ok(2_000_000_000)),
            ("2GB", Ok(2_000_000_000)),
            ("18446744073709551615", Ok(u64::MAX)),
            ("18446744073709551616", Err(UnitError::TooLarge)),
            ("18446744073709551615K", Err(UnitError::TooLarge)),
            ("-1M", Err(UnitError::Negative)),
            ("1T", Err(UnitError::UnknownUnit)),
            ("1M1K", Err(UnitError::UnknownUnit)),
            ("M", Err(UnitError::NoNumber)),
            ("", Err(UnitError::NoNumber)),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_size(text), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_written_duration_is_read_back(h in 0u64..1000, m in 0u64..60, s in 0u64..60, ms in 0u64..1000) {
            let millis = ((h * 60 + m) * 60 + s) * 1000 + ms;
            prop_assert_eq!(parse_duration(&format!("{h}h{m}m{s}s{ms}ms")), Ok(Duration::from_millis(millis)));
            let fraction = format!("{}.{:03}s", millis / 1000, millis % 1000);
            prop_assert_eq!(parse_duration(&fraction), Ok(Duration::from_millis(millis)));
        }

        #[test]
        fn every_number_of_bytes_is_read_back(bytes: u64) {
            prop_assert_eq!(parse_size(&bytes.to_string()), Ok(bytes));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "(?s).{0,40}", numeric in "[-+0-9.a-zA-Z\u{b5}]{0,60}") {
            for text in [text, numeric] {
                if let Ok(duration) = parse_duration(&text) {
                    prop_assert!(duration.as_nanos() <= i64::MAX as u128);
                }
                if parse_size(&text).is_ok() {
                    prop_assert!(text.starts_with(|c: char| c == '.' || c.is_ascii_digit()));
                }
            }
        }
    }
}
