//! The text fields of a form, in the order they came.

use serde_json::Value;

use crate::error::Error;

/// Names and values; a name may come several times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(Vec<(String, String)>);

/// Fields that a URL may have: as many as a form.
const MAX_QUERY_FIELDS: usize = 48;

impl Fields {
    /// The fields of a URL's query.
    ///
    /// # Errors
    /// A 400 when it is not percent-encoded UTF-8, or has too many fields.
    pub fn of_query(query: &str) -> Result<Self, Error> {
        let invalid = |message: &str| Error::InvalidRequest {
            param: None,
            code: Some("invalid_query"),
            message: message.into(),
        };
        let decoded = |text: &str| {
            let text = text.replace('+', " ");
            let text = percent_encoding::percent_decode_str(&text).decode_utf8();
            text.map(|text| text.into_owned()).map_err(|_| invalid("the query of the URL is not UTF-8"))
        };
        let mut fields = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if fields.len() == MAX_QUERY_FIELDS {
                return Err(invalid("the query of the URL has too many fields"));
            }
            fields.push(decoded(name)?, decoded(value)?);
        }
        Ok(fields)
    }

    /// Fields as [`Fields::pairs`] gave them.
    pub fn of_pairs(pairs: Vec<(String, String)>) -> Self {
        Self(pairs)
    }

    /// Names and values in order.
    pub fn pairs(&self) -> &[(String, String)] {
        &self.0
    }

    /// Adds one field.
    pub fn push(&mut self, name: String, value: String) {
        self.0.push((name, value));
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The last value of `name`: what counts where one is expected.
    pub fn last(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The last value of `name`, trimmed, unless it stands for "not set".
    pub fn set(&self, name: &str) -> Option<&str> {
        let value = self.last(name)?.trim();
        (!is_unset(value)).then_some(value)
    }

    /// A switch, off when it is not set.
    ///
    /// # Errors
    /// A 400 when it is neither true nor false.
    pub fn flag(&self, name: &'static str) -> Result<bool, Error> {
        let Some(value) = self.set(name) else { return Ok(false) };
        match value.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Ok(true),
            "false" | "0" | "no" | "off" => Ok(false),
            _ => Err(Error::param(name, format!("{name} must be true or false"))),
        }
    }

    /// All values of `name`.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// All values of `name[]` and `name[key]`.
    pub fn all_bracketed<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let bracketed = move |known: &str| {
            known.strip_prefix(name).is_some_and(|rest| rest.starts_with('[') && rest.ends_with(']'))
        };
        self.0.iter().filter(move |(known, _)| bracketed(known)).map(|(_, value)| value.as_str())
    }

    /// All values of `name` and `name[]` that are set, lists taken apart.
    pub fn items(&self, name: &str, split: Split) -> Vec<String> {
        let bare = self.all(name).map(|value| (value, split != Split::Never));
        let bracketed = self.all_bracketed(name).map(|value| (value, split == Split::Always));
        let mut items = Vec::new();
        for (value, commas) in bare.chain(bracketed) {
            match value.starts_with('[').then(|| serde_json::from_str(value)) {
                Some(Ok(Value::Array(list))) => {
                    items.extend(list.iter().filter_map(Value::as_str).map(str::to_owned));
                }
                _ if commas => items.extend(value.split(',').map(|item| item.trim().to_owned())),
                _ => items.push(value.trim().to_owned()),
            }
        }
        items.retain(|item| !is_unset(item));
        items
    }
}

/// Where a value is a list with commas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// In every spelling.
    Always,
    /// Only under the bare name: entries may have commas themselves.
    Bare,
    /// Nowhere.
    Never,
}

/// Whether a value means "not set", as clients write it.
pub fn is_unset(value: &str) -> bool {
    matches!(value, "" | "None" | "null" | "undefined")
}
