//! A container's root on the host: the read-only image, a writable ext4 file, and an overlay of
//! the two. Made in the shim's own mount namespace, so that it all vanishes with its processes.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

use crate::{VmmError, sys};

/// Mounts everything below `dir` and returns the root.
pub(crate) fn mount_root(dir: &Path, image: &Path, upper: &Path) -> Result<PathBuf, VmmError> {
    let [image_dir, upper_dir, root] = ["image", "upper", "root"].map(|name| dir.join(name));
    for dir in [&image_dir, &upper_dir, &root] {
        fs::create_dir_all(dir).map_err(VmmError::file("make directory", dir))?;
    }
    mount_image(image, &image_dir).map_err(VmmError::file("mount image", image))?;
    mount_upper(upper, &upper_dir).map_err(VmmError::file("mount writable layer", upper))?;
    let (files, work) = (upper_dir.join("files"), upper_dir.join("work"));
    for dir in [&files, &work] {
        fs::create_dir_all(dir).map_err(VmmError::file("make directory", dir))?;
    }
    let options = overlay_options(&image_dir, &files, &work);
    let result = mount(
        Some("overlay"),
        &root,
        Some("overlay"),
        MsFlags::MS_NODEV,
        Some(options.as_os_str()),
    );
    result
        .map_err(io::Error::from)
        .map_err(VmmError::file("mount overlay", &root))?;
    Ok(root)
}

/// From the file itself where the kernel can do so (Linux 6.12), else through a loop device.
fn mount_image(image: &Path, dir: &Path) -> io::Result<()> {
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NODEV;
    match mount(Some(image), dir, Some("erofs"), flags, None::<&str>) {
        Err(Errno::ENOTBLK | Errno::EINVAL | Errno::EOPNOTSUPP) => {}
        result => return Ok(result?),
    }
    let (_device, device) = sys::attach_loop(&File::open(image)?, true)?;
    Ok(mount(
        Some(&device),
        dir,
        Some("erofs"),
        flags,
        None::<&str>,
    )?)
}

fn mount_upper(upper: &Path, dir: &Path) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(upper)?;
    let (_device, device) = sys::attach_loop(&file, false)?;
    let flags = MsFlags::MS_NODEV | MsFlags::MS_NOATIME;
    Ok(mount(
        Some(&device),
        dir,
        Some("ext4"),
        flags,
        None::<&str>,
    )?)
}

/// Mounts a volume's file.
pub(crate) fn mount_volume(file: &Path, dir: &Path) -> Result<(), VmmError> {
    fs::create_dir_all(dir).map_err(VmmError::file("make directory", dir))?;
    mount_upper(file, dir).map_err(VmmError::file("mount volume", file))
}

fn overlay_options(image: &Path, files: &Path, work: &Path) -> OsString {
    let mut options = Vec::new();
    for (name, path) in [
        ("lowerdir=", image),
        (",upperdir=", files),
        (",workdir=", work),
    ] {
        options.extend_from_slice(name.as_bytes());
        for &byte in path.as_os_str().as_bytes() {
            if matches!(byte, b'\\' | b':' | b',') {
                options.push(b'\\');
            }
            options.push(byte);
        }
    }
    OsString::from_vec(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_in_paths_are_escaped_in_overlay_options() {
        let options = overlay_options(Path::new("/a:b"), Path::new("/c,d"), Path::new("/e"));
        assert_eq!(options, r"lowerdir=/a\:b,upperdir=/c\,d,workdir=/e");
    }
}
