//! The grammars of names, without a regular-expression engine, with upstream's explanations.

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters \
    or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', \
    regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or \
    '-', start with an alphabetic character, and end with an alphanumeric character (e.g. \
    'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
    characters, '-' or '.', and must start and end with an alphanumeric character (e.g. \
    'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and \
    must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or \
    '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric \
    characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. \
    'MyValue',  or 'my_value',  or '12345', regex used for validation is \
    '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or \
    '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is \
    '[-._a-zA-Z0-9]+')";
const ENV_NAME: &str = "a valid environment variable name must consist only of printable ASCII \
    characters other than '='";

/// Why this is not an RFC 1123 label.
pub(crate) fn label_fault(name: &str) -> Option<&'static str> {
    match name {
        name if name.len() > 63 => Some("must be no more than 63 bytes"),
        name if is_label(name) => None,
        _ => Some(LABEL),
    }
}

/// Why this is not an RFC 1035 label.
pub(crate) fn label_1035_fault(name: &str) -> Option<&'static str> {
    match name {
        name if name.len() > 63 => Some("must be no more than 63 bytes"),
        name if is_label(name) && !name.starts_with(|c: char| c.is_ascii_digit()) => None,
        _ => Some(LABEL_1035),
    }
}

/// Why this is not the name of a port, as IANA has them (RFC 6335, section 5.1).
pub(crate) fn port_name_fault(name: &str) -> Option<&'static str> {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.len() > 15 {
        Some("must be no more than 15 characters long")
    } else if !name.bytes().all(is_inner) {
        Some("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    } else if !name.bytes().any(|byte| byte.is_ascii_lowercase()) {
        Some("must contain at least one letter (a-z)")
    } else if name.contains("--") {
        Some("must not contain consecutive hyphens")
    } else if name.starts_with('-') || name.ends_with('-') {
        Some("must not begin or end with a hyphen")
    } else {
        None
    }
}

/// Why this is not an RFC 1123 subdomain.
pub(crate) fn subdomain_fault(name: &str) -> Option<&'static str> {
    match name {
        name if name.len() > 253 => Some("must be no more than 253 bytes"),
        name if name.split('.').all(is_label) => None,
        _ => Some(SUBDOMAIN),
    }
}

/// Why this cannot be a segment of a path.
pub(crate) fn path_segment_fault(name: &str) -> Option<&'static str> {
    match name {
        "." => Some("may not be '.'"),
        ".." => Some("may not be '..'"),
        name if name.contains('/') => Some("may not contain '/'"),
        name if name.contains('%') => Some("may not contain '%'"),
        _ => None,
    }
}

/// Why this is not an IP address as RFC 5952 writes it.
pub(crate) fn ip_address_fault(name: &str) -> Option<&'static str> {
    match name.parse::<std::net::IpAddr>() {
        Err(_) => Some("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"),
        Ok(address) if address.to_string() != name => {
            Some("must be in canonical form (see RFC 5952)")
        }
        Ok(_) => None,
    }
}

fn is_label(name: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !name.is_empty() && name.bytes().all(is_inner) && !name.starts_with('-') && !name.ends_with('-')
}

fn is_free_word(word: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    word.bytes().all(is_inner) && is_edge(word.bytes().next()) && is_edge(word.bytes().last())
}

/// Why this is not a label key: `[prefix/]name`.
pub(crate) fn qualified_fault(key: &str) -> Option<String> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if let Some(prefix) = prefix {
        if prefix.is_empty() {
            return Some("prefix part must be non-empty".into());
        }
        if let Some(why) = subdomain_fault(prefix) {
            return Some(format!("prefix part {why}"));
        }
    }
    match name {
        "" => Some("name part must be non-empty".into()),
        name if name.len() > 63 => Some("name part must be no more than 63 bytes".into()),
        name if is_free_word(name) => None,
        _ => Some(QUALIFIED.into()),
    }
}

/// Why this is not a label value.
pub(crate) fn label_value_fault(value: &str) -> Option<String> {
    match value {
        "" => None,
        value if value.len() > 63 => Some("must be no more than 63 bytes".into()),
        value if is_free_word(value) => None,
        _ => Some(LABEL_VALUE.into()),
    }
}

/// Why this is not a key of a ConfigMap or Secret.
pub(crate) fn config_key_fault(key: &str) -> Option<String> {
    match key {
        key if key.len() > 253 => Some("must be no more than 253 bytes".into()),
        "." => Some("must not be '.'".into()),
        ".." => Some("must not be '..'".into()),
        key if key.starts_with("..") => Some("must not start with '..'".into()),
        key if !key.is_empty()
            && key
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) =>
        {
            None
        }
        _ => Some(CONFIG_KEY.into()),
    }
}

/// Why this is not the name of an environment variable.
pub(crate) fn env_name_fault(name: &str) -> Option<&'static str> {
    let is_printable = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'=';
    if name.bytes().all(is_printable) {
        None
    } else {
        Some(ENV_NAME)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_their_grammars() {
        for name in ["a", "a-b", "a.b-c.d", "0"] {
            assert_eq!(subdomain_fault(name), None, "{name}");
        }
        for name in ["", "A", "-a", "a-", "a..b", "a_b", &"a".repeat(254)] {
            assert!(subdomain_fault(name).is_some(), "{name}");
        }
        assert!(label_fault("a.b").is_some() && label_fault(&"a".repeat(64)).is_some());
        for name in ["http", "a-1", "9p"] {
            assert_eq!(port_name_fault(name), None, "{name}");
        }
        for name in ["", "80", "A", "a--b", "-a", "a-", &"a".repeat(16)] {
            assert!(port_name_fault(name).is_some(), "{name}");
        }
        assert!(label_1035_fault("0a").is_some() && label_1035_fault("a0").is_none());
        assert_eq!(qualified_fault("example.com/App_1"), None);
        assert!(qualified_fault("/a").is_some() && qualified_fault("a/b/c").is_some());
        assert_eq!(config_key_fault("app.PROPERTIES_1"), None);
        assert!(config_key_fault("c/d").is_some() && config_key_fault("..x").is_some());
    }
}
