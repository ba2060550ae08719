//! The records of a PAX extension header: `<length> <key>=<value>\n`, over and over.
//!
//! Read by length and not by line, because a value (a capability, an ACL) may hold any byte.

use crate::error::Reason;

/// One record.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
}

pub(crate) fn records(data: &[u8]) -> impl Iterator<Item = Result<Record<'_>, Reason>> {
    let mut rest = data;
    std::iter::from_fn(move || {
        if rest.is_empty() || rest[0] == 0 {
            return None;
        }
        let record = split_record(rest);
        rest = match &record {
            Ok((_, after)) => after,
            Err(_) => &[],
        };
        Some(record.map(|(record, _)| record))
    })
}

fn split_record(data: &[u8]) -> Result<(Record<'_>, &[u8]), Reason> {
    /// Enough for the largest extension header, with room.
    const LENGTH_DIGITS_MAX: usize = 8;
    let damaged = |what| Reason::Extension(what);
    let space = data
        .iter()
        .take(LENGTH_DIGITS_MAX + 1)
        .position(|b| *b == b' ')
        .ok_or(damaged("a record has no length"))?;
    let length = decimal(&data[..space]).ok_or(damaged("a record's length is no number"))?;
    let length = usize::try_from(length).map_err(|_| damaged("a record's length is no number"))?;
    if length <= space + 1 || length > data.len() {
        return Err(damaged("a record's length is not that of the record"));
    }
    let (record, rest) = data.split_at(length);
    let body = record[space + 1..]
        .strip_suffix(b"\n")
        .ok_or(damaged("a record does not end where it says"))?;
    let equals = body
        .iter()
        .position(|b| *b == b'=')
        .ok_or(damaged("a record has no `=`"))?;
    Ok((
        Record {
            key: &body[..equals],
            value: &body[equals + 1..],
        },
        rest,
    ))
}

pub(crate) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Seconds since 1970 with an optional fraction and sign, as (seconds, nanoseconds).
pub(crate) fn time(text: &[u8]) -> Option<(i64, u32)> {
    const NANOSECOND_DIGITS: usize = 9;
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(text) => (true, text),
        None => (false, text),
    };
    let dot = text.iter().position(|b| *b == b'.').unwrap_or(text.len());
    let seconds = i64::try_from(decimal(&text[..dot])?).ok()?;
    let fraction = text.get(dot + 1..).unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let nanoseconds = (0..NANOSECOND_DIGITS).fold(0, |n, i| {
        n * 10 + u32::from(fraction.get(i).map_or(0, |b| b - b'0'))
    });
    Some(match (negative, nanoseconds) {
        (false, _) => (seconds, nanoseconds),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanoseconds),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_may_hold_line_ends_and_equals_signs() {
        let data = b"14 a=x\ny=\n\n\0z\n10 path=b\n";
        let read: Vec<_> = records(data).collect::<Result<_, _>>().unwrap();
        assert_eq!(
            read[0],
            Record {
                key: b"a",
                value: b"x\ny=\n\n\0z"
            }
        );
        assert_eq!(
            read[1],
            Record {
                key: b"path",
                value: b"b"
            }
        );
    }

    #[test]
    fn a_length_that_lies_is_refused() {
        for data in [
            &b"5 a=b\n"[..],
            b"7 a=b\n",
            b"999999999 a=b\n",
            b"-1 a=b\n",
            b" a=b\n",
            b"6 ab_\n",
        ] {
            assert!(records(data).any(|r| r.is_err()), "{data:?}");
        }
    }

    #[test]
    fn times_have_fractions_and_signs() {
        assert_eq!(time(b"12"), Some((12, 0)));
        assert_eq!(time(b"12.5"), Some((12, 500_000_000)));
        assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time(b"99999999999999999999"), None);
        assert_eq!(time(b"1.x"), None);
    }
}
