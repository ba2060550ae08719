//! The bounds of a rolling update: how many pods may be missing, and how many too many.

use serde_json::Value;

/// A number of pods, or a share of the wanted ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bound {
    Pods(i64),
    Percent(i64),
}

impl Bound {
    /// `3` or `"25%"`; none if it is neither, or negative.
    pub(crate) fn parse(value: &Value) -> Option<Self> {
        let bound = match value {
            Value::Number(number) => Self::Pods(number.as_i64()?),
            Value::String(text) => {
                let digits = text.strip_suffix('%')?;
                if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                    return None;
                }
                Self::Percent(digits.parse::<i32>().ok()?.into())
            }
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
        };
        (bound.number() >= 0).then_some(bound)
    }

    fn number(self) -> i64 {
        match self {
            Self::Pods(number) | Self::Percent(number) => number,
        }
    }

    pub(crate) fn is_zero(self) -> bool {
        self.number() == 0
    }

    /// Of `wanted` pods; a fraction of a pod counts as one if `up`.
    pub(crate) fn of(self, wanted: i64, up: bool) -> i64 {
        match self {
            Self::Pods(pods) => pods,
            Self::Percent(percent) => {
                let hundredths = percent.saturating_mul(wanted);
                (hundredths.saturating_add(if up { 99 } else { 0 })) / 100
            }
        }
    }
}

/// What a rolling update of `wanted` pods has to keep to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Pods beyond the wanted ones.
    pub(crate) surge: i64,
    /// Wanted pods that need not be available.
    pub(crate) unavailable: i64,
}

impl Limits {
    /// Of a Deployment; one that recreates has no surge, and every pod may be missing.
    pub(crate) fn of(deployment: &Value) -> Self {
        let spec = &deployment["spec"];
        let wanted = spec["replicas"].as_i64().unwrap_or(1);
        let update = &spec["strategy"]["rollingUpdate"];
        if spec["strategy"]["type"] == "Recreate" {
            return Self {
                surge: 0,
                unavailable: wanted,
            };
        }
        let bound = |field: &str, up| Bound::parse(&update[field]).map_or(0, |b| b.of(wanted, up));
        let surge = bound("maxSurge", true);
        // Rounding may leave no way forward: then one may be missing.
        let unavailable = match bound("maxUnavailable", false) {
            0 if surge == 0 => 1,
            unavailable => unavailable.min(wanted),
        };
        Self { surge, unavailable }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn shares_of_surge_round_up_and_of_absence_down_and_one_of_them_lets_it_move() {
        let limits = |replicas: i64, surge: Value, unavailable: Value| {
            let limits = Limits::of(&json!({"spec": {"replicas": replicas, "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}}}));
            (limits.surge, limits.unavailable)
        };
        assert_eq!(limits(10, json!("25%"), json!("25%")), (3, 2));
        assert_eq!(limits(1, json!("25%"), json!("25%")), (1, 0));
        assert_eq!(limits(3, json!(0), json!("25%")), (0, 1));
        assert_eq!(limits(2, json!(1), json!(5)), (1, 2));
        assert_eq!(Bound::parse(&json!("x%")), None);
        assert_eq!(Bound::parse(&json!(-1)), None);
    }
}
