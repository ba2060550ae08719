//! Files that are written into a container before it starts.

use base64::Engine as _;
use types::machine::File;

use super::words::is_plain_absolute;
use super::{Checked, Invalid, invalid, unbuilt};

/// Sum of the files' contents. A boot's specification has to fit one frame of the guest protocol.
pub(crate) const FILES_BYTES_MAX: usize = 2 << 20;

/// Checks the files of one container, and returns how large they are together.
pub(super) fn check(field: &str, files: &[File]) -> Result<usize, Invalid> {
    let mut bytes = 0;
    for (index, file) in files.iter().enumerate() {
        bytes += check_file(&format!("{field}[{index}]"), file)?;
    }
    Ok(bytes)
}

pub(super) fn check_sum(bytes: usize) -> Checked {
    if bytes > FILES_BYTES_MAX {
        let reason = format!("its files are larger than {FILES_BYTES_MAX} bytes together");
        invalid("config", reason)?;
    }
    Ok(())
}

fn check_file(field: &str, file: &File) -> Result<usize, Invalid> {
    unbuilt(field, &file.other)?;
    if !is_plain_absolute(&file.guest_path) || file.guest_path.ends_with('/') {
        let path = file.guest_path.escape_default();
        let reason = format!("`{path}` is not an absolute path of a file without `..`");
        invalid(format!("{field}.guest_path"), reason)?;
    }
    if file.mode.is_some_and(|mode| mode > 0o7777) {
        invalid(format!("{field}.mode"), "must be at most 0o7777 (4095)")?;
    }
    if file.raw_value.is_some() && file.secret_name.is_some() {
        let reason = "cannot stand beside raw_value; leave one out";
        invalid(format!("{field}.secret_name"), reason)?;
    }
    let content = file.raw_value.as_deref().unwrap_or_default();
    match base64::engine::general_purpose::STANDARD.decode(content) {
        Ok(bytes) => Ok(bytes.len()),
        Err(error) => {
            let reason = format!("is not base64: {error}");
            invalid(format!("{field}.raw_value"), reason).map(|()| 0)
        }
    }
}
