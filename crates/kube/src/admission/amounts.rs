//! Amounts of resources: what containers and pods ask for, written as Go writes quantities.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Add, Sub};

use serde_json::{Map, Value};

use crate::object;
use crate::quantity;

const UNIT: i128 = 1_000_000_000;

/// Which suffixes an amount is written with: those it was first written with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Notation {
    /// `m`, `k`, `M`, ...
    Decimal,
    /// `Ki`, `Mi`, ...
    Binary,
    /// `e3`, `e6`, ...
    Exponent,
}

/// A quantity with its notation. Compared by amount.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Amount {
    nanos: i128,
    notation: Notation,
}

/// Amounts by the name of their resource.
pub(crate) type Amounts = BTreeMap<String, Amount>;

impl Amount {
    pub(crate) const ZERO: Self = Self::count(0);

    pub(crate) const fn count(number: i64) -> Self {
        Self {
            nanos: number as i128 * UNIT,
            notation: Notation::Decimal,
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let nanos = quantity::parse(text)?;
        let suffix = text.trim_start_matches(|c: char| !c.is_ascii_alphabetic());
        let notation = match suffix {
            _ if suffix.ends_with('i') => Notation::Binary,
            "E" => Notation::Decimal,
            _ if suffix.starts_with(['e', 'E']) => Notation::Exponent,
            _ => Notation::Decimal,
        };
        Some(Self { nanos, notation })
    }

    /// From JSON, where a quantity may be a number too.
    pub(crate) fn of(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Self::parse(text),
            Value::Number(number) => Self::parse(&number.to_string()),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        }
    }

    pub(crate) fn is_zero(self) -> bool {
        self.nanos == 0
    }

    pub(crate) fn is_positive(self) -> bool {
        self.nanos > 0
    }

    /// How often `other` is in it.
    pub(crate) fn ratio(self, other: Self) -> f64 {
        // Ratios are told to six digits, which a float holds.
        self.nanos as f64 / other.nanos as f64
    }
}

impl PartialEq for Amount {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Amount {}

impl PartialOrd for Amount {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Amount {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

/// A sum is written as its first part, unless that is nothing.
impl Add for Amount {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let notation = if self.is_zero() {
            other.notation
        } else {
            self.notation
        };
        let nanos = self.nanos.saturating_add(other.nanos);
        Self { nanos, notation }
    }
}

impl Sub for Amount {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        let nanos = self.nanos.saturating_sub(other.nanos);
        Self { nanos, ..self }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
        const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let whole = self.nanos / UNIT;
        let is_binary = self.notation == Notation::Binary
            && self.nanos % UNIT == 0
            && whole.unsigned_abs() >= 1024;
        if is_binary {
            let (mut number, mut suffix) = (whole, "");
            for next in BINARY {
                if number % 1024 != 0 {
                    break;
                }
                (number, suffix) = (number / 1024, next);
            }
            return write!(f, "{number}{suffix}");
        }
        let (mut number, mut steps) = (self.nanos, 0);
        while number % 1000 == 0 && steps + 1 < DECIMAL.len() {
            number /= 1000;
            steps += 1;
        }
        match (self.notation, steps) {
            (Notation::Exponent, 3) | (_, 3) => write!(f, "{number}"),
            (Notation::Exponent, steps) => {
                let power = i32::try_from(steps).unwrap_or(0) * 3 - 9;
                write!(f, "{number}e{power}")
            }
            (Notation::Decimal | Notation::Binary, steps) => {
                write!(f, "{number}{}", DECIMAL[steps])
            }
        }
    }
}

/// The amounts that a JSON map holds; what is none is left out.
pub(crate) fn amounts(list: &Value) -> Amounts {
    let all = list.as_object().into_iter().flatten();
    all.filter_map(|(name, value)| Some((name.clone(), Amount::of(value)?)))
        .collect()
}

pub(crate) fn to_json(amounts: &Amounts) -> Value {
    let all = amounts.iter();
    let map: Map<_, _> = all
        .map(|(name, amount)| (name.clone(), amount.to_string().into()))
        .collect();
    map.into()
}

pub(crate) fn add(to: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let sum = to.get(name).map_or(*amount, |present| *present + *amount);
        to.insert(name.clone(), sum);
    }
}

fn raise(to: &mut Amounts, at_least: &Amounts) {
    for (name, amount) in at_least {
        let highest = to
            .get(name)
            .map_or(*amount, |present| (*present).max(*amount));
        to.insert(name.clone(), highest);
    }
}

/// `requests` or `limits`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Requests,
    Limits,
}

impl Side {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Side::Requests => "requests",
            Side::Limits => "limits",
        }
    }
}

pub(crate) fn of_container(container: &Value, side: Side) -> Amounts {
    amounts(&container["resources"][side.as_str()])
}

/// What a pod needs at most at one time: its containers together, or an init container with the
/// sidecars that were started before it.
pub(crate) fn of_pod(pod: &Value, side: Side) -> Amounts {
    let mut total = Amounts::new();
    for container in object::items(pod, &["spec", "containers"]) {
        add(&mut total, &of_container(container, side));
    }
    let (mut sidecars, mut starting) = (Amounts::new(), Amounts::new());
    for init in object::items(pod, &["spec", "initContainers"]) {
        let own = of_container(init, side);
        if init["restartPolicy"] == "Always" {
            add(&mut total, &own);
            add(&mut sidecars, &own);
            raise(&mut starting, &sidecars);
        } else {
            let mut together = own;
            add(&mut together, &sidecars);
            raise(&mut starting, &together);
        }
    }
    raise(&mut total, &starting);
    // What the pod says as a whole goes before what its containers say.
    total.extend(amounts(&pod["spec"]["resources"][side.as_str()]));
    for (name, amount) in amounts(&pod["spec"]["overhead"]) {
        if side == Side::Requests || total.contains_key(&name) {
            add(&mut total, &Amounts::from([(name, amount)]));
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn amounts_are_written_as_go_writes_them() {
        let cases = [
            ("1000m", "1"),
            ("0.5", "500m"),
            ("1500m", "1500m"),
            ("2048Ki", "2Mi"),
            ("1.5Gi", "1536Mi"),
            ("512", "512"),
            ("1000Ki", "1000Ki"),
            ("100e3", "100e3"),
            ("1000k", "1M"),
            ("0", "0"),
            ("-1500m", "-1500m"),
            ("1Ei", "1Ei"),
            ("5E", "5E"),
            ("0.5Ki", "512"),
        ];
        for (text, expected) in cases {
            assert_eq!(
                Amount::parse(text).expect(text).to_string(),
                expected,
                "{text}"
            );
        }
        let sum = Amount::parse("1Gi").expect("fine") + Amount::parse("512M").expect("fine");
        assert_eq!(sum.to_string(), "1548576Ki");
    }

    #[test]
    fn a_pod_needs_its_containers_or_its_greediest_beginning() {
        let needs = |cpu: &str| json!({"requests": {"cpu": cpu}});
        let pod = json!({"spec": {
            "containers": [{"resources": needs("100m")}, {"resources": needs("200m")}],
            "initContainers": [
                {"restartPolicy": "Always", "resources": needs("50m")},
                {"resources": needs("400m")}],
            "overhead": {"cpu": "1m"}}});
        let total = of_pod(&pod, Side::Requests);
        assert_eq!(total["cpu"].to_string(), "451m");
    }
}
