//! The times of the last handshakes, on disk: a line for each key, written whole.
//!
//! A daemon that is killed loses those of the last minute. Whoever recorded one of these, and
//! sends it again, costs a look-up and a handshake that leads nowhere.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use net::wireguard::{PublicKey, Timestamp};

use crate::files::write_whole;

const HEADER: &str = "aerostat initiations 1";

/// What cannot be read is forgotten, and that is said.
pub(super) fn read(path: &Path) -> Vec<(PublicKey, Timestamp)> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "cannot read the times of handshakes");
            return Vec::new();
        }
    };
    let mut lines = text.lines();
    if lines.next() != Some(HEADER) {
        tracing::warn!(path = %path.display(), "not a file of times of handshakes");
        return Vec::new();
    }
    lines.filter_map(parse).collect()
}

fn parse(line: &str) -> Option<(PublicKey, Timestamp)> {
    let (key, time) = line.split_once(' ')?;
    let bits = u128::from_str_radix(time, 16).ok()?;
    let [0, 0, 0, 0, time @ ..] = bits.to_be_bytes() else {
        return None;
    };
    Some((key.parse().ok()?, Timestamp(time)))
}

pub(super) fn write(path: &Path, all: &[(PublicKey, Timestamp)]) -> io::Result<()> {
    let mut text = format!("{HEADER}\n").into_bytes();
    for (key, time) in all {
        let mut bytes = [0; 16];
        bytes[4..].copy_from_slice(&time.0);
        writeln!(text, "{key} {:024x}", u128::from_be_bytes(bytes))?;
    }
    write_whole(path, 0o666, &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_what_is_damaged_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("initiations");
        assert!(read(&path).is_empty());
        let all = [
            (PublicKey([3; 32]), Timestamp([0x40; 12])),
            (PublicKey([4; 32]), Timestamp([0; 12])),
        ];
        write(&path, &all).unwrap();
        assert_eq!(read(&path), all);
        let text = fs::read_to_string(&path).unwrap();
        let damaged = format!("{text}nonsense\nAAAA 1\n");
        fs::write(&path, damaged).unwrap();
        assert_eq!(read(&path), all);
        fs::write(&path, "something else\n").unwrap();
        assert!(read(&path).is_empty());
    }
}
