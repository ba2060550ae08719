//! Names for machines whose creator did not care: two words and a number.

/// Plain words of one or two syllables.
const FIRST: [&str; 24] = [
    "amber", "autumn", "bold", "brave", "bright", "calm", "clear", "cold", "copper", "dawn",
    "deep", "early", "gentle", "golden", "green", "high", "late", "misty", "northern", "quiet",
    "silver", "still", "warm", "wild",
];
const SECOND: [&str; 24] = [
    "balloon", "breeze", "brook", "cloud", "dew", "drift", "feather", "field", "fog", "gust",
    "haze", "hill", "kite", "lake", "leaf", "meadow", "moon", "rain", "river", "sky", "snow",
    "star", "thermal", "wind",
];

/// The name made of the bits of `random`.
pub(super) fn name(random: u64) -> String {
    let [a, b, c, d, ..] = random.to_be_bytes();
    let pick = |words: &[&'static str], byte: u8| words[usize::from(byte) % words.len()];
    let number = u16::from_be_bytes([c, d]) % 10_000;
    format!("{}-{}-{number}", pick(&FIRST, a), pick(&SECOND, b))
}

/// Longest name in bytes: that of a DNS label. A pod's uid fits.
const NAME_BYTES_MAX: usize = 63;

/// Whether somebody may call a machine this.
pub(super) fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=NAME_BYTES_MAX).contains(&text.len())
        && text.bytes().all(plain)
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_names_are_names() {
        for random in [0, 1, u64::MAX, 0x0123_4567_89ab_cdef] {
            assert!(is_name(&name(random)), "{}", name(random));
        }
        for bad in ["", "-a", ".", "a b", "a/b", "ä", &"a".repeat(64)] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
