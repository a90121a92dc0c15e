//! Lengths of time on the command line.

/// Reads seconds: a number that is not negative, alone or with `ms`, `s` or `m` behind it.
///
/// # Errors
/// What would be right.
pub(crate) fn seconds(text: &str) -> Result<f64, String> {
    const UNITS: [(&str, f64); 3] = [("ms", 0.001), ("s", 1.0), ("m", 60.0)];
    let with_unit = UNITS.iter().find_map(|(unit, seconds)| text.strip_suffix(unit).map(|number| (number, *seconds)));
    let (number, unit) = with_unit.unwrap_or((text, 1.0));
    match number.parse::<f64>() {
        // A day is more than anybody waits for, and no overflow.
        Ok(number) if (0.0..=86_400.0).contains(&(number * unit)) => Ok(number * unit),
        _ => Err("a time is a number of seconds, or has a unit: `10`, `10s`, `500ms`, `1m`".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_unless_they_have_a_unit() {
        let all = ["10", "10s", "500ms", "1m", "0", "1.5", "0.25s"].map(seconds);
        assert_eq!(all, [10.0, 10.0, 0.5, 60.0, 0.0, 1.5, 0.25].map(Ok));
        for wrong in ["", "s", "ms", "-1", "1h", "1 s", "NaN", "inf", "1e9", "fast"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
