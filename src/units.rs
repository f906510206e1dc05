//! Sizes and durations as people write them: `16MiB`, `30s`.
//!
//! What is displayed parses back to the same value, and nothing is rounded on the way.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

/// Names of the powers of 1024, greatest first, as sizes are displayed.
const BINARY: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

const DECIMAL: [(&str, u64); 4] = [("TB", 1_000_000_000_000), ("GB", 1_000_000_000), ("MB", 1_000_000), ("KB", 1_000)];

impl ByteSize {
    pub const fn mebibytes(count: u64) -> Self {
        Self(count << 20)
    }

    pub const fn gibibytes(count: u64) -> Self {
        Self(count << 30)
    }

    pub const fn bytes(self) -> u64 {
        self.0
    }
}

/// Why a text is not a size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ByteSizeError {
    #[error("a size is a whole number and a unit out of B, KiB, MiB, GiB, TiB, KB, MB, GB, TB, such as 16MiB")]
    Malformed,
    #[error("a size is less than 16777216TiB")]
    TooLarge,
}

impl FromStr for ByteSize {
    type Err = ByteSizeError;

    /// A bare number is bytes. The unit's case does not matter: no size is a count of bits or of millibytes.
    fn from_str(text: &str) -> Result<Self, ByteSizeError> {
        let (digits, unit) = split_number(text).ok_or(ByteSizeError::Malformed)?;
        let factor = if unit.is_empty() || unit.eq_ignore_ascii_case("B") {
            1
        } else {
            let named = |(name, _): &&(&str, u64)| unit.eq_ignore_ascii_case(name);
            BINARY.iter().chain(&DECIMAL).find(named).ok_or(ByteSizeError::Malformed)?.1
        };
        // The digits are digits, so that the only way to fail is to be too many of them.
        let count: u64 = digits.parse().map_err(|_| ByteSizeError::TooLarge)?;
        count.checked_mul(factor).map(Self).ok_or(ByteSizeError::TooLarge)
    }
}

impl fmt::Display for ByteSize {
    /// The greatest binary unit that leaves a whole number, so that `104857600` shows as `100MiB` and `1500` as `1500B`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match BINARY.iter().find(|(_, factor)| self.0 != 0 && self.0.is_multiple_of(*factor)) {
            Some((unit, factor)) => f.pad(&format!("{}{unit}", self.0 / factor)),
            None => f.pad(&format!("{}B", self.0)),
        }
    }
}

/// Milliseconds of each unit of time, greatest first.
const TIME: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Why a text is not a duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    #[error("a duration is a whole number and a unit out of ms, s, m, h, d, such as 30s")]
    Malformed,
    #[error("a duration is less than 18446744073709551616ms")]
    TooLong,
}

/// Reads `500ms`, `30s`, `5m`, `2h`, `1d`. A number without a unit is refused: `30` has been seconds to one reader and
/// milliseconds to the next.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let (digits, unit) = split_number(text).ok_or(DurationError::Malformed)?;
    let (_, factor) = TIME.iter().find(|(name, _)| *name == unit).ok_or(DurationError::Malformed)?;
    let count: u64 = digits.parse().map_err(|_| DurationError::TooLong)?;
    count.checked_mul(*factor).map(Duration::from_millis).ok_or(DurationError::TooLong)
}

/// The greatest unit that leaves a whole number; what is finer than a millisecond is cut off.
pub fn format_duration(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    let whole = |(_, factor): &&(&str, u64)| milliseconds != 0 && milliseconds.is_multiple_of(u128::from(*factor));
    match TIME.iter().find(whole) {
        Some((unit, factor)) => format!("{}{unit}", milliseconds / u128::from(*factor)),
        None => String::from("0s"),
    }
}

/// `16MiB` and `16 MiB` as `("16", "MiB")`; `None` where no digit leads.
fn split_number(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    (!digits.is_empty()).then(|| (digits, unit.trim_start()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("17", 17),
            ("17B", 17),
            ("1KiB", 1024),
            ("16MiB", 16 * 1024 * 1024),
            ("5 GiB", 5 * 1024 * 1024 * 1024),
            ("1TiB", 1024_u64.pow(4)),
            ("1KB", 1_000),
            ("2kb", 2_000),
            ("3MB", 3_000_000),
            ("4gb", 4_000_000_000),
            ("5TB", 5_000_000_000_000),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", " ", "MiB", "-1", "+1", "1.5GiB", "16M", "16Mib/s", "1 2MiB", "0x10", "１６MiB", "1_000"] {
            assert_eq!(text.parse::<ByteSize>(), Err(ByteSizeError::Malformed), "{text:?}");
        }
    }

    #[test]
    fn a_size_past_64_bits_is_refused_and_the_last_one_before_is_not() {
        assert_eq!("18446744073709551615B".parse(), Ok(ByteSize(u64::MAX)));
        for text in ["18446744073709551616", "16777216TiB", "18446744073710TB", "99999999999999999999999KiB"] {
            assert_eq!(text.parse::<ByteSize>(), Err(ByteSizeError::TooLarge), "{text}");
        }
        assert!("16777215TiB".parse::<ByteSize>().is_ok());
    }

    #[test]
    fn sizes_are_shown_in_the_greatest_unit_that_is_exact() {
        for (bytes, text) in [
            (0, "0B"),
            (1500, "1500B"),
            (1024, "1KiB"),
            (104_857_600, "100MiB"),
            (3 << 29, "1536MiB"),
            (1 << 40, "1TiB"),
        ] {
            assert_eq!(ByteSize(bytes).to_string(), text);
        }
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, milliseconds) in
            [("0s", 0), ("500ms", 500), ("30s", 30_000), ("5m", 300_000), ("2 h", 7_200_000), ("1d", 86_400_000)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "30", "s", "-1s", "1.5s", "1h30m", "30S", "30sec", "1M", "1w"] {
            assert_eq!(parse_duration(text), Err(DurationError::Malformed), "{text:?}");
        }
        assert_eq!(parse_duration("18446744073709551616ms"), Err(DurationError::TooLong));
        assert_eq!(parse_duration("213503982335d"), Err(DurationError::TooLong));
    }

    proptest! {
        #[test]
        fn a_size_that_is_shown_reads_back(bytes in any::<u64>(), shift in 0_u32..64) {
            let size = ByteSize(bytes >> shift << (shift / 2));
            prop_assert_eq!(size.to_string().parse(), Ok(size));
        }

        #[test]
        fn a_duration_that_is_shown_reads_back(count in any::<u32>(), unit in 0_usize..TIME.len()) {
            let duration = Duration::from_millis(u64::from(count) * TIME[unit].1);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }

        #[test]
        fn no_text_makes_either_panic(text in any::<String>()) {
            let _ = text.parse::<ByteSize>();
            let _ = parse_duration(&text);
        }
    }
}
