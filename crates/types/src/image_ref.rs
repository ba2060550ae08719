//! References to images, as Docker writes them: `[domain/]path[:tag][@digest]`.
//!
//! Grammar: the OCI distribution specification and the `distribution/reference` package's
//! documented rules. A first component counts as a domain when it holds `.` or `:` or is
//! `localhost`; otherwise the reference is one of Docker's default registry.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest reference that is read, in bytes, as it was given and written out.
pub const REFERENCE_BYTES_MAX: usize = 512;

const DEFAULT_DOMAIN: &str = "docker.io";

/// Where an image is and which one is meant.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageRef {
    /// Host name or address of the registry, with its port if it is not the usual one.
    pub registry: String,
    pub repository: String,
    /// `latest` when neither tag nor digest was given.
    pub tag: Option<String>,
    /// `sha256:` and 64 hexadecimal digits.
    pub digest: Option<String>,
}

/// Text that names no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an image reference: {reason}")]
pub struct InvalidImageRef {
    pub text: String,
    pub reason: &'static str,
}

impl ImageRef {
    /// Whether the image was made on this host and is in no registry (`localhost/…`).
    pub fn is_local(&self) -> bool {
        self.registry == "localhost"
    }
}

impl FromStr for ImageRef {
    type Err = InvalidImageRef;

    fn from_str(text: &str) -> Result<Self, InvalidImageRef> {
        let invalid = |reason| InvalidImageRef {
            text: text.chars().take(100).collect(),
            reason,
        };
        if text.len() > REFERENCE_BYTES_MAX {
            return Err(invalid("longer than 512 bytes"));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        if digest.is_some_and(|digest| !is_digest(digest)) {
            return Err(invalid(
                "the digest must be `sha256:` and 64 hexadecimal digits",
            ));
        }
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(invalid("the tag has a character that tags cannot have"));
        }
        let (registry, path) = match name.split_once('/') {
            Some((first, path)) if is_domain(first) => (first, path.to_owned()),
            Some(_) => (DEFAULT_DOMAIN, name.to_owned()),
            None => (DEFAULT_DOMAIN, name.to_owned()),
        };
        let path = if registry == DEFAULT_DOMAIN && !path.contains('/') {
            format!("library/{path}")
        } else {
            path
        };
        if !path.split('/').all(is_path_component) {
            return Err(invalid(
                "the name must be lower-case letters, digits and separators, with `/` between parts",
            ));
        }
        let tag = match (tag, digest) {
            (None, None) => Some("latest"),
            (tag, _) => tag,
        };
        let reference = Self {
            registry: registry.to_owned(),
            repository: path,
            tag: tag.map(str::to_owned),
            digest: digest.map(str::to_owned),
        };
        // It is kept in its full form, which has to be read again.
        if reference.to_string().len() > REFERENCE_BYTES_MAX {
            return Err(invalid("longer than 512 bytes when it is written out"));
        }
        Ok(reference)
    }
}

fn is_domain(text: &str) -> bool {
    (text.contains(['.', ':']) || text == "localhost")
        && text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[')
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b".:-[]".contains(&b))
}

fn is_path_component(text: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    !text.is_empty()
        && text.bytes().all(|b| alphanumeric(b) || b"._-".contains(&b))
        && alphanumeric(text.as_bytes()[0])
        && alphanumeric(text.as_bytes()[text.len() - 1])
        && !text.contains("..")
}

fn is_tag(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        && !text.starts_with(['.', '-'])
}

fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// The full form, with registry and tag written out.
impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for ImageRef {
    type Error = InvalidImageRef;
    fn try_from(text: String) -> Result<Self, InvalidImageRef> {
        text.parse()
    }
}

impl From<ImageRef> for String {
    fn from(reference: ImageRef) -> String {
        reference.to_string()
    }
}

/// What a fuzzer calls: reads `data` as a reference.
///
/// # Panics
/// If the full form of a reference reads as another one, a part could leave a directory, or
/// whatever a fuzzer is to find.
#[doc(hidden)]
pub fn fuzz(data: &[u8]) {
    let Ok(reference) = String::from_utf8_lossy(data).parse::<ImageRef>() else {
        return;
    };
    assert_eq!(reference.to_string().parse(), Ok(reference.clone()));
    let mut parts = reference.repository.split('/');
    assert!(parts.all(|part| !part.is_empty() && !part.starts_with('.')));
    assert!(!reference.registry.contains('/') && !reference.registry.starts_with('.'));
    assert!(reference.tag.is_some() || reference.digest.is_some());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn short_names_are_written_out() {
        let full = |text: &str| text.parse::<ImageRef>().map(|r| r.to_string());
        assert_eq!(full("nginx").unwrap(), "docker.io/library/nginx:latest");
        assert_eq!(
            full("docker.io/nginx").unwrap(),
            "docker.io/library/nginx:latest"
        );
        assert_eq!(
            full("grafana/loki:2.9").unwrap(),
            "docker.io/grafana/loki:2.9"
        );
        assert_eq!(
            full("127.0.0.1:5000/a/b").unwrap(),
            "127.0.0.1:5000/a/b:latest"
        );
        assert_eq!(full("localhost/hello:1").unwrap(), "localhost/hello:1");
        let digest = format!("sha256:{}", "a".repeat(64));
        assert_eq!(
            full(&format!("x@{digest}")).unwrap(),
            format!("docker.io/library/x@{digest}")
        );
    }

    #[test]
    fn a_reference_that_is_too_long_when_written_out_is_refused() {
        let written_out = "docker.io/library/:latest".len();
        let name = "a".repeat(REFERENCE_BYTES_MAX - written_out);
        assert!(name.parse::<ImageRef>().is_ok());
        assert!(format!("{name}a").parse::<ImageRef>().is_err());
    }

    #[test]
    fn what_could_leave_a_directory_is_refused() {
        for text in [
            "",
            "a/../b",
            "../a",
            "A",
            "a b",
            "a:",
            "x@sha256:00",
            "a//b",
            "a/",
            ":5000/x",
        ] {
            assert!(text.parse::<ImageRef>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_full_form_reads_as_the_same_reference(text in "[a-z0-9.:/@-]{0,60}") {
            if let Ok(reference) = text.parse::<ImageRef>() {
                prop_assert_eq!(reference.to_string().parse::<ImageRef>().unwrap(), reference);
            }
        }
    }
}
