//! The types of CEL, and which functions take which: what an expression is before it is run.

use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::sync::OnceLock;

/// What an object has. The names of fields are as a schema writes them.
pub(crate) trait Shape: fmt::Debug {
    /// As messages call it.
    fn name(&self) -> String;
    fn field(&self, name: &str) -> Option<Type>;
}

#[derive(Debug, Clone)]
pub(crate) enum Type {
    /// Known when it is run; also what a part is that has been found wrong.
    Dyn,
    /// One without parts: `int`, `net.IP`.
    Plain(Rc<str>),
    List(Box<Type>),
    Map(Box<Type>, Box<Type>),
    Optional(Box<Type>),
    Object(Rc<dyn Shape>),
    /// A type that a function leaves open.
    Open(char),
}

impl Type {
    pub(crate) fn plain(name: &str) -> Self {
        Type::Plain(name.into())
    }

    pub(super) fn is(&self, name: &str) -> bool {
        matches!(self, Type::Plain(known) if **known == *name)
    }
}

impl fmt::Display for Type {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Dyn => out.write_str("dyn"),
            Type::Plain(name) => out.write_str(name),
            Type::List(item) => write!(out, "list({item})"),
            Type::Map(key, value) => write!(out, "map({key}, {value})"),
            Type::Optional(inner) => write!(out, "optional_type({inner})"),
            Type::Object(shape) => out.write_str(&shape.name()),
            Type::Open(name) => write!(out, "{name}"),
        }
    }
}

/// One way to call a function.
pub(super) struct Overload {
    pub(super) target: Option<Known>,
    pub(super) given: Vec<Known>,
    pub(super) made: Known,
}

/// A [`Type`] of the table, which is shared by threads.
pub(super) enum Known {
    Dyn,
    Open(char),
    Plain(String),
    List(Box<Known>),
    Map(Box<Known>, Box<Known>),
    Optional(Box<Known>),
}

impl Known {
    fn parse(text: &str) -> Self {
        let text = text.trim();
        let inner = |name: &str| {
            let rest = text.strip_prefix(name)?.strip_prefix('(')?;
            rest.strip_suffix(')')
        };
        if let Some(item) = inner("list") {
            return Known::List(Box::new(Self::parse(item)));
        }
        if let Some(item) = inner("optional_type") {
            return Known::Optional(Box::new(Self::parse(item)));
        }
        if let Some(both) = inner("map") {
            let (key, value) = both.split_once(',').unwrap_or((both, "dyn"));
            return Known::Map(Box::new(Self::parse(key)), Box::new(Self::parse(value)));
        }
        match text {
            "dyn" => Known::Dyn,
            "A" => Known::Open('A'),
            "B" => Known::Open('B'),
            name => Known::Plain(name.to_owned()),
        }
    }

    pub(super) fn to_type(&self) -> Type {
        match self {
            Known::Dyn => Type::Dyn,
            Known::Open(name) => Type::Open(*name),
            Known::Plain(name) => Type::plain(name),
            Known::List(item) => Type::List(Box::new(item.to_type())),
            Known::Map(key, value) => Type::Map(Box::new(key.to_type()), Box::new(value.to_type())),
            Known::Optional(inner) => Type::Optional(Box::new(inner.to_type())),
        }
    }
}

/// All functions by their names; a namespace is part of the name.
pub(super) fn functions() -> &'static HashMap<String, Vec<Overload>> {
    static TABLE: OnceLock<HashMap<String, Vec<Overload>>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut table: HashMap<String, Vec<Overload>> = HashMap::new();
        for line in include_str!("functions.txt").lines() {
            if let Some((name, overload)) = read(line) {
                table.entry(name).or_default().push(overload);
            }
        }
        const ORDERED: [&str; 5] = ["bool", "string", "bytes", "timestamp", "duration"];
        const NUMBERS: [&str; 3] = ["int", "uint", "double"];
        let same = ORDERED.iter().map(|one| (*one, *one));
        let mixed = NUMBERS
            .iter()
            .flat_map(|one| NUMBERS.iter().map(move |other| (*one, *other)));
        for (one, other) in same.chain(mixed) {
            for name in ["_<_", "_<=_", "_>_", "_>=_"] {
                let overload = Overload {
                    target: None,
                    given: vec![Known::parse(one), Known::parse(other)],
                    made: Known::parse("bool"),
                };
                table.entry(name.to_owned()).or_default().push(overload);
            }
        }
        table
    })
}

/// Where the arguments of a line begin and end: the first pair that a space follows.
fn parentheses(line: &str) -> Option<(usize, usize)> {
    let mut open = Vec::new();
    for (index, c) in line.char_indices() {
        match c {
            '(' => open.push(index),
            ')' => {
                let begin = open.pop()?;
                if open.is_empty() && line[index + 1..].starts_with(' ') {
                    return Some((begin, index));
                }
            }
            _ => {}
        }
    }
    None
}

/// `target.name(given) made`; a target is a type, and a namespace is none.
fn read(line: &str) -> Option<(String, Overload)> {
    const NAMESPACES: [&str; 8] = [
        "strings",
        "lists",
        "sets",
        "base64",
        "ip",
        "format",
        "optional",
        "jsonpatch",
    ];
    let (begin, end) = parentheses(line)?;
    let (head, given, made) = (&line[..begin], &line[begin + 1..end], &line[end + 1..]);
    let method = head
        .rsplit_once('.')
        .filter(|(target, _)| !NAMESPACES.contains(target));
    let (target, name) = match method {
        Some((target, name)) => (Some(Known::parse(target)), name),
        None => (None, head),
    };
    let mut parts = Vec::new();
    let (mut level, mut start) = (0, 0);
    for (index, c) in given.char_indices() {
        match c {
            '(' => level += 1,
            ')' => level -= 1,
            ',' if level == 0 => {
                parts.push(Known::parse(&given[start..index]));
                start = index + 1;
            }
            _ => {}
        }
    }
    if !given[start..].trim().is_empty() {
        parts.push(Known::parse(&given[start..]));
    }
    let overload = Overload {
        target,
        given: parts,
        made: Known::parse(made),
    };
    Some((name.to_owned(), overload))
}

/// What open types have been found to be.
#[derive(Default)]
pub(super) struct Bound(HashMap<char, Type>);

impl Bound {
    /// Whether a value of type `is` can stand where `wanted` is asked for.
    pub(super) fn fits(&mut self, wanted: &Type, is: &Type) -> bool {
        match (wanted, is) {
            (Type::Open(name), _) => match self.0.get(name).cloned() {
                Some(Type::Dyn) => true,
                Some(before) => {
                    let fits = self.fits(&before, is);
                    if fits && matches!(is, Type::Dyn) {
                        self.0.insert(*name, Type::Dyn);
                    }
                    fits || (is_nullable(is) && before.is("null"))
                }
                None => {
                    self.0.insert(*name, is.clone());
                    true
                }
            },
            (Type::Dyn, _) | (_, Type::Dyn | Type::Open(_)) => true,
            (Type::Plain(one), Type::Plain(other)) if one == other => true,
            (wanted, is) if is.is("null") => is_nullable(wanted),
            (Type::List(one), Type::List(other)) | (Type::Optional(one), Type::Optional(other)) => {
                self.fits(one, other)
            }
            (Type::Map(key, value), Type::Map(other_key, other)) => {
                self.fits(key, other_key) && self.fits(value, other)
            }
            (Type::Object(one), Type::Object(other)) => one.name() == other.name(),
            (
                Type::Plain(_)
                | Type::List(_)
                | Type::Map(..)
                | Type::Optional(_)
                | Type::Object(_),
                _,
            ) => false,
        }
    }

    /// The type with what is known put in; what stays open may be anything.
    pub(super) fn close(&self, made: &Type) -> Type {
        let inner = |one: &Type| Box::new(self.close(one));
        match made {
            Type::Open(name) => self.0.get(name).cloned().unwrap_or(Type::Dyn),
            Type::List(item) => Type::List(inner(item)),
            Type::Map(key, value) => Type::Map(inner(key), inner(value)),
            Type::Optional(one) => Type::Optional(inner(one)),
            Type::Dyn | Type::Plain(_) | Type::Object(_) => made.clone(),
        }
    }
}

/// Null can stand for these.
fn is_nullable(one: &Type) -> bool {
    match one {
        Type::Plain(name) => {
            matches!(&**name, "null" | "timestamp" | "duration") || name.contains('.')
        }
        Type::Object(_) | Type::Dyn | Type::Open(_) => true,
        Type::List(_) | Type::Map(..) | Type::Optional(_) => false,
    }
}
