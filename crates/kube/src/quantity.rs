//! Quantities: `500m`, `1.5Gi`, `2e3`.

/// Billionths, so that every suffix Kubernetes has is exact.
const UNIT: i128 = 1_000_000_000;

const SUFFIXES: &[(&str, i128, i128)] = &[
    // suffix, multiplier, divisor
    ("n", 1, UNIT),
    ("u", 1, 1_000_000),
    ("m", 1, 1000),
    ("", 1, 1),
    ("k", 1000, 1),
    ("M", 1_000_000, 1),
    ("G", 1_000_000_000, 1),
    ("T", 1_000_000_000_000, 1),
    ("P", 1_000_000_000_000_000, 1),
    ("E", 1_000_000_000_000_000_000, 1),
    ("Ki", 1 << 10, 1),
    ("Mi", 1 << 20, 1),
    ("Gi", 1 << 30, 1),
    ("Ti", 1 << 40, 1),
    ("Pi", 1 << 50, 1),
    ("Ei", 1 << 60, 1),
];

/// The amount in billionths; `None` if this is no quantity or beyond what 127 bits hold.
pub fn parse(text: &str) -> Option<i128> {
    let (sign, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = unsigned
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let (multiplier, divisor) = match SUFFIXES.iter().find(|(name, ..)| *name == suffix) {
        Some((_, multiplier, divisor)) => (*multiplier, *divisor),
        None => exponent(suffix)?,
    };
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let scale = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let billionths = digits.checked_mul(multiplier)?.checked_mul(UNIT)?;
    Some(sign * billionths / divisor.checked_mul(scale)?)
}

/// The form that Go writes: the largest suffix of the same family that keeps the number whole, so
/// `1024Mi` is `1Gi` and `0.5` is `500m`.
pub fn canonical(text: &str) -> Option<String> {
    let text = text.trim();
    let billionths = parse(text)?;
    let suffix = text.trim_start_matches(|c: char| !c.is_ascii_alphabetic());
    let (sign, amount) = (
        if billionths < 0 { "-" } else { "" },
        billionths.unsigned_abs(),
    );
    let unit = UNIT.unsigned_abs();
    if amount == 0 {
        return Some("0".to_owned());
    }
    if suffix.ends_with('i') && amount >= 1024 * unit {
        // Fractions of a byte are rounded up.
        let (mut whole, mut power) = (amount.div_ceil(unit), 0);
        while whole % 1024 == 0 && power + 1 < BINARY.len() {
            whole /= 1024;
            power += 1;
        }
        return Some(format!("{sign}{whole}{}", BINARY[power]));
    }
    let (mut whole, mut power) = (amount, 0);
    while whole % 1000 == 0 && power + 1 < DECIMAL.len() {
        whole /= 1000;
        power += 1;
    }
    let is_exponent = suffix.len() > 1 && suffix.starts_with(['e', 'E']);
    Some(match (is_exponent, power) {
        (true, 3) | (false, _) => format!("{sign}{whole}{}", DECIMAL[power]),
        (true, _) => {
            let exponent = i32::try_from(power).ok()? * 3 - 9;
            format!("{sign}{whole}e{exponent}")
        }
    })
}

const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
/// By powers of a thousand, from a billionth on.
const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];

fn exponent(suffix: &str) -> Option<(i128, i128)> {
    let power: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    let size = 10_i128.checked_pow(power.unsigned_abs())?;
    Some(if power < 0 { (1, size) } else { (size, 1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_canonical_form_is_the_one_go_writes() {
        for (given, expected) in [
            ("1", "1"),
            ("0", "0"),
            ("0.5", "500m"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("1000", "1k"),
            ("1.5Gi", "1536Mi"),
            ("1024Mi", "1Gi"),
            ("512Mi", "512Mi"),
            ("0.5Ki", "512"),
            ("1e3", "1e3"),
            ("-2000k", "-2M"),
            ("100", "100"),
        ] {
            assert_eq!(canonical(given).as_deref(), Some(expected), "{given}");
        }
        assert_eq!(canonical("x"), None);
    }

    #[test]
    fn every_form_is_exact() {
        let cases = [
            ("1", UNIT),
            ("500m", UNIT / 2),
            ("0.5", UNIT / 2),
            (".5", UNIT / 2),
            ("1n", 1),
            ("1Ki", 1024 * UNIT),
            ("1.5Gi", (3 << 29) * UNIT),
            ("2e3", 2000 * UNIT),
            ("-1", -UNIT),
            ("5E", 5_000_000_000_000_000_000 * UNIT),
            ("1E2", 100 * UNIT),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), Some(expected), "{text}");
        }
        for text in ["", "x", "1x", "1.2.3", "--1", ".", "1e", "1 Gi"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
