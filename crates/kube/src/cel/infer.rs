//! Finds the type of an expression, and what is wrong with it, in the words of cel-go.
//!
//! ```text
//!   text ── syntax (places) ── types of its parts, from the leaves up ──> type, or all faults
//! ```

use super::rewrite::unescape;
use super::syntax::{Node, Optional, What, parse, path_of};
use super::types::{Bound, Type, functions};

/// Faults that are told of one expression.
const FAULTS_MAX: usize = 10;
/// Parts that are looked at, one in the other.
const LEVELS_MAX: usize = 200;

/// The names that an expression may use.
#[derive(Debug, Default)]
pub(crate) struct Names(pub(crate) Vec<(String, Type)>);

/// The type of an expression; `None` if the text is beyond the parser, which says nothing of it.
///
/// # Errors
/// All that is wrong, each with its line and a mark below.
pub(crate) fn infer(source: &str, names: &Names) -> Result<Option<Type>, String> {
    let Some(node) = parse(source) else {
        return Ok(None);
    };
    let mut walk = Walk {
        names: names.0.clone(),
        faults: Vec::new(),
        level: 0,
    };
    let found = walk.node(&node);
    if walk.faults.is_empty() {
        return Ok(Some(found));
    }
    walk.faults.sort_by_key(|(at, _)| *at);
    let told = walk.faults.iter().take(FAULTS_MAX);
    let told: Vec<_> = told.map(|(at, why)| show(source, *at, why)).collect();
    Err(told.join("\n"))
}

/// The name of the variable that a macro makes.
fn variable(node: &Node) -> Option<String> {
    match &node.what {
        What::Ident(name) => Some(name.clone()),
        _ => None,
    }
}

/// As the compiler shows a fault: where, what, and the line with a mark.
fn show(source: &str, at: usize, why: &str) -> String {
    let before = &source[..at];
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let column = source[start..at].chars().count();
    let shown = source[start..].lines().next().unwrap_or_default();
    let mark = ".".repeat(column);
    format!(
        "ERROR: <input>:{line}:{}: {why}\n | {shown}\n | {mark}^",
        column + 1
    )
}

struct Walk {
    names: Vec<(String, Type)>,
    faults: Vec<(usize, String)>,
    level: usize,
}

impl Walk {
    fn fault(&mut self, at: usize, why: String) -> Type {
        self.faults.push((at, why));
        Type::Dyn
    }

    fn node(&mut self, node: &Node) -> Type {
        if self.level >= LEVELS_MAX {
            return Type::Dyn;
        }
        self.level += 1;
        let found = self.what(node);
        self.level -= 1;
        found
    }

    fn what(&mut self, node: &Node) -> Type {
        match &node.what {
            What::Null => Type::plain("null"),
            What::Bool => Type::plain("bool"),
            What::Int => Type::plain("int"),
            What::Uint => Type::plain("uint"),
            What::Double => Type::plain("double"),
            What::Bytes => Type::plain("bytes"),
            What::Text(_) => Type::plain("string"),
            What::Ident(name) => self.name(node.at, name),
            What::Select(of, field, optional) => {
                let of = self.node(of);
                let found = self.field(node.at, of, field);
                match (optional, found) {
                    (Optional::No, found) | (Optional::Yes, found @ Type::Optional(_)) => found,
                    (Optional::Yes, found) => Type::Optional(Box::new(found)),
                }
            }
            What::Call(name, target, given) => self.call(node.at, name, target.as_deref(), given),
            What::List(items) => Type::List(Box::new(self.all(items.iter()))),
            What::Map(entries) => {
                let key = self.all(entries.iter().map(|(key, _)| key));
                let value = self.all(entries.iter().map(|(_, value)| value));
                Type::Map(Box::new(key), Box::new(value))
            }
            What::Message(_, values) => {
                values.iter().for_each(|value| drop(self.node(value)));
                Type::Dyn
            }
        }
    }

    /// What parts have in common that must be of one type.
    fn all<'a>(&mut self, parts: impl Iterator<Item = &'a Node>) -> Type {
        let mut common = None;
        for part in parts {
            let is = self.node(part);
            match &common {
                None => common = Some(is),
                Some(wanted) => {
                    if !Bound::default().fits(wanted, &is) {
                        let why = format!("expected type '{wanted}' but found '{is}'");
                        self.fault(part.at, why);
                    } else if matches!(is, Type::Dyn) {
                        common = Some(Type::Dyn);
                    }
                }
            }
        }
        common.unwrap_or(Type::Dyn)
    }

    fn name(&mut self, at: usize, name: &str) -> Type {
        const TYPES: [&str; 13] = [
            "bool",
            "bytes",
            "double",
            "dyn",
            "int",
            "list",
            "map",
            "null_type",
            "optional_type",
            "string",
            "type",
            "uint",
            "net",
        ];
        let found = self.names.iter().rev().find(|(known, _)| known == name);
        match found {
            Some((_, known)) => known.clone(),
            None if TYPES.contains(&name) => Type::plain("type"),
            None => {
                let why = format!("undeclared reference to '{name}' (in container '')");
                self.fault(at, why)
            }
        }
    }

    fn field(&mut self, at: usize, of: Type, name: &str) -> Type {
        match of {
            Type::Dyn | Type::Open(_) => Type::Dyn,
            Type::Map(_, value) => *value,
            Type::Optional(inner) => match self.field(at, *inner, name) {
                found @ Type::Optional(_) => found,
                found => Type::Optional(Box::new(found)),
            },
            Type::Plain(known)
                if &*known == "kubernetes.authorization.Authorizer"
                    && name == "requestResource" =>
            {
                Type::plain("kubernetes.authorization.ResourceCheck")
            }
            Type::Object(shape) => match shape.field(&unescape(name)) {
                Some(found) => found,
                None => self.fault(at, format!("undefined field '{name}'")),
            },
            other @ (Type::Plain(_) | Type::List(_)) => {
                let why = format!("type '{other}' does not support field selection");
                self.fault(at, why)
            }
        }
    }

    fn call(&mut self, at: usize, name: &str, target: Option<&Node>, given: &[Node]) -> Type {
        if let Some(made) = self.macros(at, name, target, given) {
            return made;
        }
        if matches!(name, "_&&_" | "_||_") {
            for part in given {
                self.wanted(part, "bool");
            }
            return Type::plain("bool");
        }
        let namespace = target.and_then(path_of);
        let is_variable = |path: &str| {
            let first = path.split('.').next().unwrap_or_default();
            self.names.iter().any(|(known, _)| known == first)
        };
        let qualified = namespace
            .filter(|path| !is_variable(path))
            .map(|path| format!("{path}.{name}"));
        let qualified = qualified.filter(|name| functions().contains_key(name));
        let (name, target) = match &qualified {
            Some(name) => (name.as_str(), None),
            None => (name, target),
        };
        let target = target.map(|target| self.node(target));
        let parts: Vec<_> = given.iter().map(|part| self.node(part)).collect();
        let Some(overloads) = functions().get(name) else {
            let why = format!("undeclared reference to '{name}' (in container '')");
            return self.fault(at, why);
        };
        let mut made: Option<Type> = None;
        for overload in overloads {
            let mut bound = Bound::default();
            let fits = match (&overload.target, &target) {
                (Some(wanted), Some(is)) => bound.fits(&wanted.to_type(), is),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            };
            let fits = fits
                && overload.given.len() == parts.len()
                && overload
                    .given
                    .iter()
                    .zip(&parts)
                    .all(|(wanted, is)| bound.fits(&wanted.to_type(), is));
            if fits {
                let one = bound.close(&overload.made.to_type());
                let is_same = |made: &Type| made.to_string() == one.to_string();
                // Several may fit what is known only later.
                made = Some(match made {
                    Some(made) if !is_same(&made) => Type::Dyn,
                    _ => one,
                });
            }
        }
        self.literals(name, given);
        made.unwrap_or_else(|| {
            let parts: Vec<_> = parts.iter().map(Type::to_string).collect();
            let target = target.map_or_else(String::new, |target| format!("{target}."));
            let parts = parts.join(", ");
            let why =
                format!("found no matching overload for '{name}' applied to '{target}({parts})'");
            self.fault(at, why)
        })
    }

    /// Arguments that are written down can be wrong before anything is run.
    fn literals(&mut self, name: &str, given: &[Node]) {
        let Some(last) = given.last() else { return };
        let What::Text(text) = &last.what else { return };
        let is_fine = match name {
            "matches" | "find" | "findAll" => regex::Regex::new(text).is_ok(),
            "timestamp" => text.parse::<jiff::Timestamp>().is_ok(),
            _ => true,
        };
        if !is_fine {
            self.fault(last.at, format!("invalid {name} argument"));
        }
    }

    fn wanted(&mut self, part: &Node, wanted: &str) {
        let is = self.node(part);
        if !Bound::default().fits(&Type::plain(wanted), &is) {
            let why = format!("expected type '{wanted}' but found '{is}'");
            self.fault(part.at, why);
        }
    }

    /// The type of a macro; `None` if it is none.
    fn macros(
        &mut self,
        at: usize,
        name: &str,
        target: Option<&Node>,
        given: &[Node],
    ) -> Option<Type> {
        match (name, target, given) {
            ("has", None, [of]) => {
                if let What::Select(of, field, _) = &of.what {
                    let of = self.node(of);
                    self.field(at, of, field);
                }
                Some(Type::plain("bool"))
            }
            (
                "all" | "exists" | "exists_one" | "existsOne",
                Some(range),
                [one, rest @ .., test],
            ) if rest.len() <= 1 => {
                let mut loops = vec![variable(one)?];
                loops.extend(rest.iter().filter_map(variable));
                self.each(range, &loops, |walk| walk.wanted(test, "bool"));
                Some(Type::plain("bool"))
            }
            ("filter", Some(range), [one, test]) => {
                let of = self.each(range, &[variable(one)?], |walk| walk.wanted(test, "bool"));
                Some(match of {
                    Type::Map(key, _) => Type::List(key),
                    other => other,
                })
            }
            ("map", Some(range), [one, tests @ .., made]) if tests.len() <= 1 => {
                let mut item = Type::Dyn;
                self.each(range, &[variable(one)?], |walk| {
                    tests.iter().for_each(|test| walk.wanted(test, "bool"));
                    item = walk.node(made);
                });
                Some(Type::List(Box::new(item)))
            }
            _ => self.later_macros(name, target, given),
        }
    }

    /// Those that came to CEL later.
    fn later_macros(&mut self, name: &str, target: Option<&Node>, given: &[Node]) -> Option<Type> {
        match (name, target, given) {
            ("sortBy", Some(range), [one, by]) => {
                Some(self.each(range, &[variable(one)?], |walk| drop(walk.node(by))))
            }
            ("optMap" | "optFlatMap", Some(of), [one, made]) => {
                let inner = match self.node(of) {
                    Type::Optional(inner) => *inner,
                    _ => Type::Dyn,
                };
                self.names.push((variable(one)?, inner));
                let made = self.node(made);
                self.names.pop();
                Some(match name {
                    "optMap" => Type::Optional(Box::new(made)),
                    _ => made,
                })
            }
            (
                "transformList" | "transformMap" | "transformMapEntry",
                Some(range),
                [one, two, rest @ ..],
            ) => {
                let loops = [variable(one)?, variable(two)?];
                let mut made = Type::Dyn;
                self.each(range, &loops, |walk| {
                    for part in rest {
                        made = walk.node(part);
                    }
                });
                Some(match name {
                    "transformList" => Type::List(Box::new(made)),
                    _ => Type::Dyn,
                })
            }
            _ => None,
        }
    }

    /// Looks at the body of a loop, and returns the type of what it goes over.
    fn each(&mut self, range: &Node, loops: &[String], body: impl FnOnce(&mut Self)) -> Type {
        let of = self.node(range);
        let (first, second) = match &of {
            Type::List(item) if loops.len() == 1 => ((**item).clone(), Type::Dyn),
            Type::List(item) => (Type::plain("int"), (**item).clone()),
            Type::Map(key, value) => ((**key).clone(), (**value).clone()),
            Type::Dyn | Type::Open(_) => (Type::Dyn, Type::Dyn),
            other @ (Type::Plain(_) | Type::Optional(_) | Type::Object(_)) => {
                let why = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be \
                     list, map, or dynamic)"
                );
                self.fault(range.at, why);
                (Type::Dyn, Type::Dyn)
            }
        };
        let depth = self.names.len();
        for (name, known) in loops.iter().zip([first, second]) {
            self.names.push((name.clone(), known));
        }
        body(self);
        self.names.truncate(depth);
        of
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(source: &str) -> Result<String, String> {
        let names = Names(vec![
            ("a".to_owned(), Type::plain("int")),
            ("s".to_owned(), Type::plain("string")),
            ("l".to_owned(), Type::List(Box::new(Type::plain("string")))),
            ("d".to_owned(), Type::Dyn),
        ]);
        let found = infer(source, &names)?;
        Ok(found.map_or_else(|| "?".to_owned(), |found| found.to_string()))
    }

    #[test]
    fn expressions_have_the_types_of_their_parts() {
        for (source, expected) in [
            ("a + 1", "int"),
            ("a < 2.5 && l.all(x, x.size() > 1)", "bool"),
            ("l.map(x, x.size())", "list(int)"),
            ("{'k': l}", "map(string, list(string))"),
            ("d.x.y[0] == 'z' || d in [1, 2]", "bool"),
            ("s.find('a').split(',')[0]", "string"),
            ("l.filter(x, x != 'b').join('-')", "string"),
            ("optional.of(a).orValue(2)", "int"),
            (
                "quantity(s).add(quantity('1')).isGreaterThan(quantity('2'))",
                "bool",
            ),
            ("url(s).getQuery()['a'].all(v, v == 'b')", "bool"),
            (
                "sets.contains(l, ['a']) ? duration('1s') : duration(s)",
                "duration",
            ),
            (
                "timestamp('2020-01-01T00:00:00Z') + duration('1h') > timestamp(s)",
                "bool",
            ),
            ("type(a) == int && dyn(a) == 'x'", "bool"),
            ("l.exists(i, v, i > 0 && v == 'a')", "bool"),
            ("format.dns1123Label().validate(s).hasValue()", "bool"),
            ("d == null || s in d", "bool"),
        ] {
            assert_eq!(told(source), Ok(expected.to_owned()), "{source}");
        }
    }

    #[test]
    fn what_does_not_fit_is_shown_where_it_stands() {
        for (source, column, why) in [
            (
                "a > s",
                3,
                "found no matching overload for '_>_' applied to '(int, string)'",
            ),
            (
                "a == 1.0",
                3,
                "found no matching overload for '_==_' applied to '(int, double)'",
            ),
            (
                "a == null",
                3,
                "found no matching overload for '_==_' applied to '(int, null)'",
            ),
            (
                "s.startsWith(1)",
                13,
                "found no matching overload for 'startsWith' applied to \
                'string.(int)'",
            ),
            (
                "l.sum() > 1",
                6,
                "found no matching overload for 'sum' applied to 'list(string).()'",
            ),
            (
                "1 in l",
                3,
                "found no matching overload for '@in' applied to '(int, list(string))'",
            ),
            (
                "[1, 'a'].size() > 1",
                5,
                "expected type 'int' but found 'string'",
            ),
            ("true || a", 9, "expected type 'bool' but found 'int'"),
            (
                "foo(1)",
                4,
                "undeclared reference to 'foo' (in container '')",
            ),
            ("s.x.y", 2, "type 'string' does not support field selection"),
            ("s.matches('(')", 11, "invalid matches argument"),
            (
                "a.all(x, true)",
                1,
                "expression of type 'int' cannot be range of a comprehension \
                (must be list, map, or dynamic)",
            ),
            (
                "true ? a : s",
                6,
                "found no matching overload for '_?_:_' applied to '(bool, int, \
                string)'",
            ),
        ] {
            let mark = ".".repeat(column - 1);
            let expected = format!("ERROR: <input>:1:{column}: {why}\n | {source}\n | {mark}^");
            assert_eq!(told(source), Err(expected), "{source}");
        }
        let two = told("math.greatest(1, 2) == 2").expect_err("wrong");
        assert_eq!(two.matches("ERROR").count(), 2, "{two}");
    }
}
