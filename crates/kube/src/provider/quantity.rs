//! Resource quantities as the provider and the scheduler add them up: thousandths, rounded up.

use serde_json::Value;

/// Billionths, which `crate::quantity` counts in, per thousandth.
const BILLIONTHS_PER_MILLI: u128 = 1_000_000;

/// Thousandths of the unit that a JSON quantity is in (processors or bytes): text, or a bare number
/// as some clients write it. `None` if it is no quantity, or negative.
pub(crate) fn milli_of(value: &Value) -> Option<u128> {
    let billionths = match value {
        Value::String(text) => crate::quantity::parse(text)?,
        Value::Number(number) => crate::quantity::parse(&number.to_string())?,
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    let billionths = u128::try_from(billionths).ok()?;
    Some(billionths.div_ceil(BILLIONTHS_PER_MILLI))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn quantities_are_texts_or_numbers_and_round_up() {
        for (value, milli) in [
            (json!("100m"), Some(100)),
            (json!("1u"), Some(1)),
            (json!(2), Some(2000)),
            (json!(0.5), Some(500)),
            (json!("64Mi"), Some((64 << 20) * 1000)),
            (json!("-1"), None),
            (json!("x"), None),
            (json!(null), None),
        ] {
            assert_eq!(milli_of(&value), milli, "{value}");
        }
    }
}
