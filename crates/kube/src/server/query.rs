//! Query parameters.

use crate::status::Status;

/// The decoded parameters of a request.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(query: Option<&str>) -> Self {
        let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        Self(pairs.into_owned().collect())
    }

    /// The first value; empty if there is none.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map_or("", |(_, value)| value)
    }

    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Upstream takes everything but `false` and `0` for true.
    pub(super) fn flag(&self, name: &str) -> bool {
        let given = self.0.iter().find(|(key, _)| key == name);
        given.is_some_and(|(_, value)| !matches!(value.to_lowercase().as_str(), "false" | "0"))
    }

    /// A number, if the parameter is there and not empty.
    pub(super) fn integer(&self, name: &str) -> Result<Option<i64>, Status> {
        match self.get(name) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                Status::bad_request(format!(
                    "strconv.ParseInt: parsing {text:?}: invalid syntax"
                ))
            }),
        }
    }

    /// [`Query::integer`], of what cannot be negative.
    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, Status> {
        let number = self.integer(name)?;
        Ok(number.and_then(|number| u64::try_from(number).ok()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_may_be_repeated() {
        let query = Query::parse(Some(
            "command=ls&command=a%20b&tty=true&stdin=false&limit=5",
        ));
        assert_eq!(query.all("command").collect::<Vec<_>>(), ["ls", "a b"]);
        assert!(query.flag("tty") && !query.flag("stdin") && !query.flag("none"));
        assert_eq!(query.number("limit").expect("a number"), Some(5));
        assert!(query.number("tty").is_err());
    }
}
