//! Durations as the Machines API has them.

use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A duration as Fly's clients write it: whole nanoseconds, or Go's text (`1m30s`).
/// Serialised as Go's text.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "Value", into = "String")]
pub struct Duration(pub std::time::Duration);

impl TryFrom<Value> for Duration {
    type Error = String;
    fn try_from(value: Value) -> Result<Self, String> {
        let problem = || format!("{value} is not a duration like \"10s\" or a number of ns");
        match &value {
            Value::Number(ns) => {
                let ns = ns.as_u64().ok_or_else(problem)?;
                Ok(Self(std::time::Duration::from_nanos(ns)))
            }
            Value::String(text) => text.parse().map_err(|()| problem()),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => Err(problem()),
        }
    }
}

impl FromStr for Duration {
    type Err = ();
    /// Go's `time.ParseDuration`, without signs.
    fn from_str(text: &str) -> Result<Self, ()> {
        let mut rest = text;
        let mut seconds = 0f64;
        if text == "0" {
            return Ok(Self(std::time::Duration::ZERO));
        }
        while !rest.is_empty() {
            let digits = rest
                .find(|c: char| !c.is_ascii_digit() && c != '.')
                .ok_or(())?;
            let number: f64 = rest[..digits].parse().map_err(|_| ())?;
            rest = &rest[digits..];
            let unit = rest
                .find(|c: char| c.is_ascii_digit())
                .unwrap_or(rest.len());
            seconds += number
                * match &rest[..unit] {
                    "ns" => 1e-9,
                    "us" | "µs" => 1e-6,
                    "ms" => 1e-3,
                    "s" => 1.0,
                    "m" => 60.0,
                    "h" => 3600.0,
                    _ => return Err(()),
                };
            rest = &rest[unit..];
        }
        if text.is_empty() {
            return Err(());
        }
        std::time::Duration::try_from_secs_f64(seconds)
            .map(Self)
            .map_err(|_| ())
    }
}

impl From<Duration> for String {
    fn from(duration: Duration) -> String {
        if duration.0.subsec_nanos().is_multiple_of(1_000_000) {
            format!("{}ms", duration.0.as_millis())
        } else {
            format!("{}ns", duration.0.as_nanos())
        }
    }
}
