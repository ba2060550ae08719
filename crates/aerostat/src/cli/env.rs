//! `aerostat env`: shell exports for what runs on this host.

use std::fs;

use anyhow::Context as _;

use super::output;
use super::{Context, Format};
use crate::app::Endpoints;

pub(super) fn run(context: &Context) -> anyhow::Result<()> {
    let endpoints = Endpoints::read(&context.paths)?
        .context("nothing runs on this host; start it with `aerostat up`")?;
    let token = fs::read_to_string(&endpoints.token_file).with_context(|| {
        format!(
            "cannot read the API token in {}",
            endpoints.token_file.display()
        )
    })?;
    let mut variables = Vec::new();
    if let Some(kubernetes) = &endpoints.kubernetes {
        variables.push(("KUBECONFIG", kubernetes.kubeconfig.display().to_string()));
    }
    variables.extend([
        ("FLY_FLAPS_BASE_URL", format!("http://{}", endpoints.api)),
        ("FLY_API_TOKEN", token.trim().to_owned()),
        // Fly's tools ask their own service for what the Machines API does not answer; without
        // these two they would send it this host's token.
        ("FLY_API_BASE_URL", format!("http://{}", endpoints.api)),
        ("FLY_SEND_METRICS", "0".to_owned()),
    ]);
    match context.format {
        Format::Table | Format::Wide | Format::Name => {
            for (name, value) in &variables {
                output::line(&format!("export {name}={}", quoted(value)))?;
            }
            Ok(())
        }
        Format::Json | Format::Yaml => {
            let map: std::collections::BTreeMap<_, _> = variables.into_iter().collect();
            output::print(context.format, &map, || output::Table::new(&[]), Vec::new)
        }
    }
}

/// The value as one word of a POSIX shell.
pub(super) fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/.:_-@%+=,[]".contains(c);
    if !value.is_empty() && value.chars().all(plain) {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_stays_one_word() {
        assert_eq!(quoted("/var/lib/x"), "/var/lib/x");
        assert_eq!(quoted("a b'c"), r"'a b'\''c'");
        assert_eq!(quoted(""), "''");
    }
}
