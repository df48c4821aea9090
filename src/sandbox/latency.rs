//! How long a platform takes: fixed, anything between two bounds, or now and then very long.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::dice::Dice;

/// No drawn latency is longer: past it every client has given up.
const LONGEST: Duration = Duration::from_secs(30);

/// Written as `50ms`, `20ms..80ms` or `20ms~heavy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Latency {
    Fixed(Duration),
    Jitter(Duration, Duration),
    /// Pareto with this least value: half within 1.6 times of it, one in a hundred above twenty times.
    Heavy(Duration),
}

impl Latency {
    pub const NONE: Latency = Latency::Fixed(Duration::ZERO);

    pub(super) fn draw(self, dice: &mut Dice) -> Duration {
        match self {
            Latency::Fixed(d) => d,
            Latency::Jitter(low, high) => low + high.saturating_sub(low).mul_f64(dice.unit()),
            Latency::Heavy(least) => {
                let factor = (1.0 - dice.unit()).powf(-1.0 / 1.5);
                Duration::try_from_secs_f64(least.as_secs_f64() * factor).unwrap_or(LONGEST).min(LONGEST)
            }
        }
    }
}

impl Default for Latency {
    fn default() -> Latency {
        Latency::NONE
    }
}

impl FromStr for Latency {
    type Err = String;

    fn from_str(text: &str) -> Result<Latency, String> {
        if let Some(least) = text.strip_suffix("~heavy") {
            return Ok(Latency::Heavy(duration(least)?));
        }
        match text.split_once("..") {
            Some((low, high)) => Ok(Latency::Jitter(duration(low)?, duration(high)?)),
            None => Ok(Latency::Fixed(duration(text)?)),
        }
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic() || c == 'µ').unwrap_or(text.len()));
    let scale = match unit {
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "" if number == "0" => 1.0,
        _ => return Err(format!("`{text}` is not a duration such as 50ms")),
    };
    let number: f64 = number.trim().parse().map_err(|_| format!("`{text}` is not a duration such as 50ms"))?;
    Duration::try_from_secs_f64(number * scale).map_err(|_| format!("`{text}` is not a duration such as 50ms"))
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |d: &Duration| d.as_secs_f64() * 1000.0;
        match self {
            Latency::Fixed(d) => write!(f, "{}ms", ms(d)),
            Latency::Jitter(low, high) => write!(f, "{}ms..{}ms", ms(low), ms(high)),
            Latency::Heavy(least) => write!(f, "{}ms~heavy", ms(least)),
        }
    }
}

impl<'de> Deserialize<'de> for Latency {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Latency, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Latency {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_written_as_people_write_them() {
        for text in ["50ms", "20ms..80ms", "20ms~heavy", "0ms"] {
            assert_eq!(text.parse::<Latency>().unwrap().to_string(), text);
        }
        assert_eq!("1.5s".parse(), Ok(Latency::Fixed(Duration::from_millis(1500))));
        assert!(
            "50".parse::<Latency>().is_err() && "".parse::<Latency>().is_err() && "-1s".parse::<Latency>().is_err()
        );
        let mut dice = Dice(1);
        let mut drawn: Vec<_> = (0..2001).map(|_| Latency::Heavy(Duration::from_millis(10)).draw(&mut dice)).collect();
        drawn.sort_unstable();
        assert!(drawn[1000] < Duration::from_millis(20) && drawn[1990] > Duration::from_millis(150));
    }
}
