//! Reading a GraphQL query: fields with aliases, arguments and selections. Mutations, fragments,
//! directives and arguments that are no text are told apart from nonsense, and not read.

/// Selections within selections. Fly's deepest query has half as many.
const DEPTH_MAX: usize = 16;

#[derive(Debug, PartialEq)]
pub(super) struct Field<'a> {
    /// What the answer calls it; its name, unless the query says otherwise.
    pub(super) alias: &'a str,
    pub(super) name: &'a str,
    pub(super) arguments: Vec<(&'a str, Argument<'a>)>,
    pub(super) fields: Vec<Field<'a>>,
}

#[derive(Debug, PartialEq)]
pub(super) enum Argument<'a> {
    Variable(&'a str),
    Text(&'a str),
}

#[derive(Debug, PartialEq)]
pub(super) enum Problem {
    Syntax,
    Unsupported,
}

/// Reads a query with one operation.
pub(super) fn parse(text: &str) -> Result<Vec<Field<'_>>, Problem> {
    let mut reader = Reader { rest: text };
    if let Some(kind) = reader.name() {
        if kind != "query" {
            return Err(Problem::Unsupported);
        }
        let _operation = reader.name();
        reader.skip_variables()?;
    }
    let fields = reader.selection(DEPTH_MAX)?;
    match reader.peek() {
        None => Ok(fields),
        Some(_) => Err(Problem::Unsupported),
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    /// The next character that means something; commas do not.
    fn peek(&mut self) -> Option<char> {
        loop {
            let blank = |c: char| c.is_whitespace() || c == ',';
            self.rest = self.rest.trim_start_matches(blank);
            match self.rest.strip_prefix('#') {
                Some(comment) => {
                    let end = comment.find('\n').unwrap_or(comment.len());
                    self.rest = &comment[end..];
                }
                None => return self.rest.chars().next(),
            }
        }
    }

    fn take(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.rest = &self.rest[wanted.len_utf8()..];
        }
        found
    }

    fn expect(&mut self, wanted: char) -> Result<(), Problem> {
        match self.peek() {
            Some(found) if found == wanted => {
                self.rest = &self.rest[wanted.len_utf8()..];
                Ok(())
            }
            Some('.' | '@') => Err(Problem::Unsupported),
            Some(_) | None => Err(Problem::Syntax),
        }
    }

    fn name(&mut self) -> Option<&'a str> {
        self.peek()
            .filter(|c| c.is_ascii_alphabetic() || *c == '_')?;
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let end = self.rest.find(|c| !word(c)).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        Some(name)
    }

    /// Declarations of variables say nothing that their use does not.
    fn skip_variables(&mut self) -> Result<(), Problem> {
        if !self.take('(') {
            return Ok(());
        }
        let end = self.rest.find(')').ok_or(Problem::Syntax)?;
        self.rest = &self.rest[end + 1..];
        Ok(())
    }

    fn selection(&mut self, depth_left: usize) -> Result<Vec<Field<'a>>, Problem> {
        if depth_left == 0 {
            return Err(Problem::Unsupported);
        }
        self.expect('{')?;
        let mut fields = Vec::new();
        while !self.take('}') {
            let field = self.field(depth_left - 1)?;
            fields.push(field);
        }
        if fields.is_empty() {
            return Err(Problem::Syntax);
        }
        Ok(fields)
    }

    fn field(&mut self, depth_left: usize) -> Result<Field<'a>, Problem> {
        let Some(alias) = self.name() else {
            return Err(match self.peek() {
                Some('.' | '@') => Problem::Unsupported,
                Some(_) | None => Problem::Syntax,
            });
        };
        let name = match self.take(':') {
            true => self.name().ok_or(Problem::Syntax)?,
            false => alias,
        };
        let arguments = match self.take('(') {
            true => self.arguments()?,
            false => Vec::new(),
        };
        let fields = match self.peek() {
            Some('{') => self.selection(depth_left)?,
            Some(_) | None => Vec::new(),
        };
        Ok(Field {
            alias,
            name,
            arguments,
            fields,
        })
    }

    fn arguments(&mut self) -> Result<Vec<(&'a str, Argument<'a>)>, Problem> {
        let mut arguments = Vec::new();
        while !self.take(')') {
            let name = self.name().ok_or(Problem::Syntax)?;
            self.expect(':')?;
            let argument = match self.peek() {
                Some('$') => {
                    self.expect('$')?;
                    Argument::Variable(self.name().ok_or(Problem::Syntax)?)
                }
                Some('"') => {
                    let text = &self.rest[1..];
                    let end = text.find('"').ok_or(Problem::Syntax)?;
                    self.rest = &text[end + 1..];
                    let text = &text[..end];
                    if text.contains('\\') {
                        return Err(Problem::Unsupported);
                    }
                    Argument::Text(text)
                }
                Some(_) => return Err(Problem::Unsupported),
                None => return Err(Problem::Syntax),
            };
            arguments.push((name, argument));
        }
        Ok(arguments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(name: &str) -> Field<'_> {
        Field {
            alias: name,
            name,
            arguments: vec![],
            fields: vec![],
        }
    }

    #[test]
    fn a_query_is_read_with_aliases_arguments_and_selections() {
        let text = "query ($appName: String!) {\n  short:app(name: $appName, x: \"y\") {\n    id # \
                    a comment\n    organization { slug, name }\n  }\n}";
        let app = Field {
            alias: "short",
            name: "app",
            arguments: vec![
                ("name", Argument::Variable("appName")),
                ("x", Argument::Text("y")),
            ],
            fields: vec![
                leaf("id"),
                Field {
                    fields: vec![leaf("slug"), leaf("name")],
                    ..leaf("organization")
                },
            ],
        };
        assert_eq!(parse(text), Ok(vec![app]));
        assert_eq!(parse("{ a }"), Ok(vec![leaf("a")]));
        assert_eq!(parse("query Named { a }"), Ok(vec![leaf("a")]));
    }

    #[test]
    fn what_is_not_read_is_told_from_nonsense() {
        for text in [
            "mutation { a }",
            "{ ... on User { a } }",
            "{ a @include(if: $b) }",
            "{ a(first: 200) }",
            "{ a } query { b }",
        ] {
            assert_eq!(parse(text), Err(Problem::Unsupported), "{text}");
        }
        for text in [
            "",
            "{",
            "{}",
            "{ a(",
            "{ a(b: \"c }",
            "query (",
            "{ a: }",
            "€",
        ] {
            assert_eq!(parse(text), Err(Problem::Syntax), "{text}");
        }
        let deep = "{a".repeat(100_000);
        assert_eq!(parse(&deep), Err(Problem::Unsupported));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in r#"[{}():,$"\\.@#a€ \n]{0,40}"#) {
            let _ = parse(&text);
        }
    }
}
