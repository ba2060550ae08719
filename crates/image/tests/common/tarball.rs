//! Layers for tests, honest ones and others: every field of a header can be chosen.

use tar::{EntryType, Header};

/// A tar stream in the making.
#[derive(Clone, Default)]
pub(crate) struct Tarball {
    bytes: Vec<u8>,
}

impl Tarball {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn header(kind: EntryType, path: &str, mode: u32) -> Header {
        let mut header = Header::new_ustar();
        let name = path.as_bytes();
        assert!(
            name.len() <= 100,
            "long names need `pax` or `gnu_long_name`"
        );
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_600_000_000);
        header.set_size(0);
        header
    }

    /// Any header with any content, which need not agree.
    pub(crate) fn raw(mut self, mut header: Header, content: &[u8]) -> Self {
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn file(self, path: &str, mode: u32, content: &[u8]) -> Self {
        let mut header = Self::header(EntryType::Regular, path, mode);
        header.set_size(content.len() as u64);
        self.raw(header, content)
    }

    pub(crate) fn directory(self, path: &str, mode: u32) -> Self {
        self.raw(Self::header(EntryType::Directory, path, mode), &[])
    }

    pub(crate) fn symlink(self, path: &str, target: &str) -> Self {
        self.link(EntryType::Symlink, path, target)
    }

    pub(crate) fn hard_link(self, path: &str, target: &str) -> Self {
        self.link(EntryType::Link, path, target)
    }

    fn link(self, kind: EntryType, path: &str, target: &str) -> Self {
        let mut header = Self::header(kind, path, 0o777);
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        self.raw(header, &[])
    }

    pub(crate) fn device(self, kind: EntryType, path: &str, major: u32, minor: u32) -> Self {
        let mut header = Self::header(kind, path, 0o600);
        header.set_device_major(major).unwrap();
        header.set_device_minor(minor).unwrap();
        self.raw(header, &[])
    }

    pub(crate) fn whiteout(self, path: &str) -> Self {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let slash = if parent.is_empty() { "" } else { "/" };
        self.file(&format!("{parent}{slash}.wh.{name}"), 0o600, b"")
    }

    pub(crate) fn opaque(self, path: &str) -> Self {
        self.file(&format!("{path}/.wh..wh..opq"), 0o600, b"")
    }

    /// An extension header for the entry that follows.
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let body = key.len() + value.len() + 3;
            let mut length = body + 1;
            while length != body + length.to_string().len() {
                length = body + length.to_string().len();
            }
            data.extend_from_slice(format!("{length} {key}=").as_bytes());
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        self.raw_pax(&data)
    }

    pub(crate) fn raw_pax(self, data: &[u8]) -> Self {
        let mut header = Self::header(EntryType::XHeader, "PaxHeaders/x", 0o644);
        header.set_size(data.len() as u64);
        self.raw(header, data)
    }

    pub(crate) fn gnu_long_name(self, name: &str) -> Self {
        let mut header = Self::header(EntryType::GNULongName, "././@LongLink", 0o644);
        header.set_size(name.len() as u64 + 1);
        self.raw(header, &[name.as_bytes(), b"\0"].concat())
    }

    /// The stream with its end mark.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        self.bytes
    }

    /// The stream as it is, for a layer that breaks off.
    pub(crate) fn cut(self) -> Vec<u8> {
        self.bytes
    }
}
