//! The formats of strings that a schema can ask for. One that is not known does not restrict.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

/// Whether `text` has this format.
pub(crate) fn fits(format: &str, text: &str) -> bool {
    match format {
        "date-time" | "datetime" => is_date_time(text),
        "date" => text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok(),
        "duration" => duration(text).is_some(),
        "byte" => BASE64_STANDARD.decode(text).is_ok(),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => is_cidr(text),
        "mac" => is_mac(text),
        "uri" => {
            text.split_once(':').is_some_and(|(scheme, rest)| {
                let is_letter = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
                scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                    && scheme.chars().all(is_letter)
                    && !rest.is_empty()
                    && !rest.contains(char::is_whitespace)
            }) || text.starts_with('/')
        }
        "email" => text.split_once('@').is_some_and(|(user, host)| {
            !user.is_empty() && !host.is_empty() && !text.contains(char::is_whitespace)
        }),
        "hostname" => is_hostname(text),
        "uuid" | "uuid3" | "uuid4" | "uuid5" => is_uuid(format, text),
        _ => true,
    }
}

fn is_date_time(text: &str) -> bool {
    // RFC 3339 has a time zone; jiff alone would take a date for enough of a time.
    text.len() >= 20 && text.parse::<jiff::Timestamp>().is_ok()
}

fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else {
        return false;
    };
    let is_number = bits.bytes().all(|byte| byte.is_ascii_digit()) && !bits.is_empty();
    match (address.parse(), bits.parse::<u8>()) {
        (Ok(IpAddr::V4(_)), Ok(bits)) => is_number && bits <= 32,
        (Ok(IpAddr::V6(_)), Ok(bits)) => is_number && bits <= 128,
        _ => false,
    }
}

fn is_mac(text: &str) -> bool {
    let parts: Vec<_> = text.split([':', '-']).collect();
    let is_byte = |part: &&str| part.len() == 2 && u8::from_str_radix(part, 16).is_ok();
    matches!(parts.len(), 6 | 8 | 20) && parts.iter().all(is_byte)
}

/// One label, or several of which the last has at least two letters and nothing else.
fn is_hostname(text: &str) -> bool {
    let labels: Vec<_> = text.split('.').collect();
    let is_top = |label: &str| label.len() >= 2 && label.chars().all(char::is_alphabetic);
    let last = labels.last().copied().unwrap_or_default();
    text.len() <= 253
        && labels.iter().copied().all(is_host_label)
        && (labels.len() == 1 || is_top(last))
}

fn is_host_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.chars().all(|c| c.is_alphanumeric() || c == '-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

fn is_uuid(format: &str, text: &str) -> bool {
    let Ok(uuid) = uuid::Uuid::parse_str(text) else {
        return false;
    };
    match format {
        "uuid3" => uuid.get_version_num() == 3,
        "uuid4" => uuid.get_version_num() == 4,
        "uuid5" => uuid.get_version_num() == 5,
        _ => true,
    }
}

/// A duration of Go, such as `1h15m30.918s`, in nanoseconds.
pub(crate) fn duration(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut nanos = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        let end = rest.find(|c| !is_number(c))?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest.find(is_number).unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        nanos += number * unit;
        rest = &rest[end..];
    }
    #[expect(clippy::cast_possible_truncation, reason = "bounded above")]
    (nanos < 9.2e18).then_some((sign * nanos) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_let_through_what_they_name() {
        for (format, yes, no) in [
            ("date-time", "2026-11-21T08:12:25Z", "2026-11-21"),
            ("date", "2026-11-21", "2026-13-01"),
            ("duration", "1h15m0.5s", "1 hour"),
            ("byte", "aGk=", "a"),
            ("ipv4", "10.0.0.1", "10.0.0"),
            ("ipv6", "fdaa::1", "10.0.0.1"),
            ("cidr", "10.0.0.0/8", "10.0.0.0/33"),
            ("mac", "00:11:22:33:44:55", "00:11"),
            ("uri", "https://example.com/a", "example"),
            ("email", "a@b.c", "a"),
            ("hostname", "a.example.com", "-a"),
            ("uuid4", "9b2a5c3e-7e2f-4d8e-8a3b-0c1d2e3f4a5b", "9b2a"),
        ] {
            assert!(fits(format, yes), "{format}: {yes}");
            assert!(!fits(format, no), "{format}: {no}");
        }
        assert!(fits("int-or-whatever", "anything"));
        assert_eq!(duration("-1.5s"), Some(-1_500_000_000));
    }
}
