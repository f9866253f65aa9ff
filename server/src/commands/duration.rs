//! Durations as people write them: a number with s, m, h or d.

use std::time::Duration;

/// Reads `90s`, `15m`, `1h`, `14d`.
pub(super) fn parse(text: &str) -> Result<Duration, &'static str> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).ok_or("a unit is missing: s, m, h or d")?;
    let (number, unit) = text.split_at(unit_at);
    let seconds: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return Err("the unit is s, m, h or d"),
    };
    let number: u32 = number.parse().map_err(|_| "a number is missing, or too great")?;
    Ok(Duration::from_secs(seconds * u64::from(number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(parse("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse("7d"), Ok(Duration::from_secs(7 * 86_400)));
        for wrong in ["", "7", "h", "1.5h", "-1h", "99999999999h", "1w"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
