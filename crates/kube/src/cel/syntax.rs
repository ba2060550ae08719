//! Expressions with the places of their parts, for what is told of them when they are written.
//!
//! The library that evaluates keeps places to itself and unfolds macros early. This parser reads
//! what that one has accepted, so it need not tell what is wrong: where it gives up, nothing is
//! checked.

/// A part of an expression; `at` is the byte where cel-go says that it is.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) at: usize,
    pub(super) what: What,
    /// Of the parts within parts.
    levels: usize,
}

impl Node {
    /// None where whoever descends into every part would need a stack that nobody has.
    fn new(at: usize, what: What) -> Option<Self> {
        let below = match &what {
            What::Null
            | What::Bool
            | What::Int
            | What::Uint
            | What::Double
            | What::Bytes
            | What::Text(_)
            | What::Ident(_) => 0,
            What::Select(of, ..) => of.levels,
            What::Call(_, of, given) => {
                let of = of.as_ref().map_or(0, |of| of.levels);
                of.max(deepest(given))
            }
            What::List(all) | What::Message(_, all) => deepest(all),
            What::Map(all) => {
                let pairs = all.iter().map(|(key, value)| key.levels.max(value.levels));
                pairs.max().unwrap_or(0)
            }
        };
        let levels = below + 1;
        (levels <= LEVELS_MAX).then_some(Self { at, what, levels })
    }
}

fn deepest(nodes: &[Node]) -> usize {
    nodes.iter().map(|node| node.levels).max().unwrap_or(0)
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum What {
    Null,
    Bool,
    Int,
    Uint,
    Double,
    Bytes,
    Text(String),
    Ident(String),
    /// `of.field`, or `of.?field`.
    Select(Box<Node>, String, Optional),
    /// A function, a method or an operator under the name that messages have for it.
    Call(String, Option<Box<Node>>, Vec<Node>),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
    /// `Object.spec{…}`.
    Message(String, Vec<Node>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Optional {
    Yes,
    No,
}

/// Operators of two sides, the loosest first: what is written, what it is called.
const BINARY: [&[(&str, &str)]; 5] = [
    &[("||", "_||_")],
    &[("&&", "_&&_")],
    &[
        ("<=", "_<=_"),
        (">=", "_>=_"),
        ("==", "_==_"),
        ("!=", "_!=_"),
        ("<", "_<_"),
        (">", "_>_"),
        ("in", "@in"),
    ],
    &[("+", "_+_"), ("-", "_-_")],
    &[("*", "_*_"), ("/", "_/_"), ("%", "_%_")],
];

/// Parts within parts.
const LEVELS_MAX: usize = 300;

/// None where the text is beyond this parser.
pub(super) fn parse(source: &str) -> Option<Node> {
    let mut parser = Parser {
        source,
        at: 0,
        signs: 0,
    };
    let node = parser.expression()?;
    parser.space();
    (parser.at == source.len()).then_some(node)
}

struct Parser<'a> {
    source: &'a str,
    at: usize,
    /// In a row; brackets and conditions were counted by whoever read this before.
    signs: usize,
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    fn space(&mut self) {
        loop {
            let rest = self.rest().trim_start();
            self.at = self.source.len() - rest.len();
            if !rest.starts_with("//") {
                return;
            }
            self.at += rest.find('\n').unwrap_or(rest.len());
        }
    }

    /// Takes a sign or word, and tells where it stood.
    fn take(&mut self, text: &str) -> Option<usize> {
        self.space();
        let rest = self.rest().strip_prefix(text)?;
        let splits_word = text.chars().all(is_word) && rest.starts_with(is_word);
        let at = self.at;
        (!splits_word).then(|| {
            self.at += text.len();
            at
        })
    }

    fn expression(&mut self) -> Option<Node> {
        let condition = self.binary(0)?;
        let Some(at) = self.take("?") else {
            return Some(condition);
        };
        let one = self.binary(0)?;
        self.take(":")?;
        let other = self.expression()?;
        call(at, "_?_:_", vec![condition, one, other])
    }

    fn binary(&mut self, level: usize) -> Option<Node> {
        let Some(operators) = BINARY.get(level) else {
            return self.unary();
        };
        let mut left = self.binary(level + 1)?;
        'more: loop {
            for (sign, name) in *operators {
                if let Some(at) = self.take(sign) {
                    let right = self.binary(level + 1)?;
                    left = call(at, name, vec![left, right])?;
                    continue 'more;
                }
            }
            return Some(left);
        }
    }

    fn unary(&mut self) -> Option<Node> {
        if let Some(at) = self.take("!") {
            return call(at, "!_", vec![self.signed()?]);
        }
        self.space();
        let after = self.rest().strip_prefix('-').unwrap_or_default();
        let is_number = after.starts_with(|c: char| c.is_ascii_digit());
        if self.rest().starts_with('-') && !is_number {
            let at = self.take("-")?;
            return call(at, "-_", vec![self.signed()?]);
        }
        let primary = self.primary()?;
        self.members(primary)
    }

    /// What stands behind a sign.
    fn signed(&mut self) -> Option<Node> {
        self.signs += 1;
        let node = (self.signs <= LEVELS_MAX).then(|| self.unary())?;
        self.signs -= 1;
        node
    }

    fn members(&mut self, mut node: Node) -> Option<Node> {
        loop {
            if let Some(at) = self.take(".") {
                let optional = match self.take("?") {
                    Some(_) => Optional::Yes,
                    None => Optional::No,
                };
                let name = self.word()?;
                node = match self.take("(") {
                    Some(at) => {
                        let given = self.list(")")?;
                        let what = What::Call(name, Some(Box::new(node)), given);
                        Node::new(at, what)?
                    }
                    None => {
                        let what = What::Select(Box::new(node), name, optional);
                        Node::new(at, what)?
                    }
                };
            } else if let Some(at) = self.take("[") {
                let name = match self.take("?") {
                    Some(_) => "_[?_]",
                    None => "_[_]",
                };
                let index = self.expression()?;
                self.take("]")?;
                node = call(at, name, vec![node, index])?;
            } else if let (Some(name), Some(at)) = (path_of(&node), self.take_brace(&node)) {
                node = Node::new(at, What::Message(name, self.fields()?))?;
            } else {
                return Some(node);
            }
        }
    }

    /// Braces make an object only after a name that begins with a capital.
    fn take_brace(&mut self, node: &Node) -> Option<usize> {
        let name = path_of(node)?;
        let is_type = name.starts_with(|c: char| c.is_ascii_uppercase());
        is_type.then(|| self.take("{")).flatten()
    }

    fn fields(&mut self) -> Option<Vec<Node>> {
        let mut values = Vec::new();
        while self.take("}").is_none() {
            self.take("?");
            self.word()?;
            self.take(":")?;
            values.push(self.expression()?);
            if self.take(",").is_none() {
                self.take("}")?;
                break;
            }
        }
        Some(values)
    }

    fn list(&mut self, end: &str) -> Option<Vec<Node>> {
        let mut all = Vec::new();
        while self.take(end).is_none() {
            self.take("?");
            all.push(self.expression()?);
            if self.take(",").is_none() {
                self.take(end)?;
                break;
            }
        }
        Some(all)
    }

    fn word(&mut self) -> Option<String> {
        self.space();
        let rest = self.rest();
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let word = &rest[..end];
        let is_name = word.starts_with(|c: char| !c.is_ascii_digit());
        self.at += end;
        (is_name && !word.is_empty()).then(|| word.to_owned())
    }

    fn primary(&mut self) -> Option<Node> {
        self.space();
        let at = self.at;
        let node = |what| Node::new(at, what);
        if self.take("(").is_some() {
            let inner = self.expression()?;
            self.take(")")?;
            return Some(inner);
        }
        if self.take("[").is_some() {
            return node(What::List(self.list("]")?));
        }
        if self.take("{").is_some() {
            return node(What::Map(self.entries()?));
        }
        if let Some(what) = self.text() {
            return node(what);
        }
        let rest = self.rest();
        if rest.starts_with(|c: char| c.is_ascii_digit() || c == '-') {
            return node(self.number()?);
        }
        self.take(".");
        let name = self.word()?;
        match name.as_str() {
            "null" => return node(What::Null),
            "true" | "false" => return node(What::Bool),
            _ => {}
        }
        match self.take("(") {
            Some(at) => {
                let given = self.list(")")?;
                let what = What::Call(name, None, given);
                Node::new(at, what)
            }
            None => node(What::Ident(name)),
        }
    }

    fn entries(&mut self) -> Option<Vec<(Node, Node)>> {
        let mut all = Vec::new();
        while self.take("}").is_none() {
            self.take("?");
            let key = self.expression()?;
            self.take(":")?;
            all.push((key, self.expression()?));
            if self.take(",").is_none() {
                self.take("}")?;
                break;
            }
        }
        Some(all)
    }

    fn number(&mut self) -> Option<What> {
        let rest = self.rest();
        let is_hex = rest.trim_start_matches('-').starts_with("0x");
        let mut end = 0;
        for (index, c) in rest.char_indices() {
            let is_sign = (c == '-' || c == '+')
                && (index == 0 || (!is_hex && rest[..index].ends_with(['e', 'E'])));
            if !(c.is_ascii_alphanumeric() || c == '.' || is_sign) {
                break;
            }
            end = index + c.len_utf8();
        }
        let text = &rest[..end];
        self.at += end;
        Some(if text.ends_with(['u', 'U']) {
            What::Uint
        } else if !is_hex && text.contains(['.', 'e', 'E']) {
            What::Double
        } else {
            What::Int
        })
    }

    /// A string or bytes, with the escapes that tests of literals need.
    fn text(&mut self) -> Option<What> {
        let rest = self.rest();
        let quotes = |byte| matches!(byte, b'"' | b'\'');
        let lead = rest.bytes().take(3).position(quotes)?;
        let prefix = rest[..lead].to_ascii_lowercase();
        if !matches!(prefix.as_str(), "" | "b" | "r" | "br" | "rb") {
            return None;
        }
        let body = &rest[lead..];
        let quote = &body[..1];
        let triple = quote.repeat(3);
        let quote = if body.starts_with(&triple) {
            triple.as_str()
        } else {
            quote
        };
        let is_raw = prefix.contains('r');
        let mut text = String::new();
        let mut at = quote.len();
        loop {
            let left = &body[at..];
            if left.starts_with(quote) {
                break;
            }
            let c = left.chars().next()?;
            at += c.len_utf8();
            if c == '\\' && !is_raw {
                let escaped = body[at..].chars().next()?;
                at += escaped.len_utf8();
                match escaped {
                    'n' => text.push('\n'),
                    't' => text.push('\t'),
                    other => text.push(other),
                }
            } else {
                text.push(c);
            }
        }
        self.at += lead + at + quote.len();
        Some(match prefix.contains('b') {
            true => What::Bytes,
            false => What::Text(text),
        })
    }
}

fn call(at: usize, name: &str, given: Vec<Node>) -> Option<Node> {
    Node::new(at, What::Call(name.to_owned(), None, given))
}

/// `a.b.c` of a chain of names.
pub(super) fn path_of(node: &Node) -> Option<String> {
    match &node.what {
        What::Ident(name) => Some(name.clone()),
        What::Select(of, field, Optional::No) => Some(format!("{}.{field}", path_of(of)?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_stand_where_messages_say() {
        let node = parse("self.a + 1 == 2 ? f(x) : y").expect("fine");
        assert_eq!(node.at, 16);
        let What::Call(name, None, parts) = &node.what else {
            panic!("{node:?}");
        };
        assert_eq!((name.as_str(), parts[0].at, parts[1].at), ("_?_:_", 11, 19));
        for source in [
            "a in [1, 2u, -3.5e1, 0xff] && !b[?0].c",
            r#"{"a": r'\d', 'b': b"x"}.size() > -x"#,
            "Object{spec: Object.spec{a: 1}} // so",
            "'''it's''' == x.?y.orValue('')",
        ] {
            assert!(parse(source).is_some(), "{source}");
        }
        assert_eq!(parse("a +"), None);
    }

    #[test]
    fn what_is_nested_too_deeply_is_given_up() {
        let signs = "!".repeat(30_000) + "a";
        let sum = vec!["a"; 16_000].join("||");
        let chain = vec!["a"; 16_000].join(".");
        let choices = "a?b:".repeat(250) + "c";
        for source in [signs, sum, chain] {
            assert_eq!(parse(&source), None);
        }
        assert!(parse(&choices).is_some());
    }
}
