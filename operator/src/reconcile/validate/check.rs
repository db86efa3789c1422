//! Checks of single fields: what is wrong is collected, with the place of each.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Problem;
use crate::fingerprint;
use crate::reconcile::quantity;

/// Collects what is wrong with the fields of one engine.
pub struct Check<'a> {
    place: &'a str,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Check<'a> {
    /// For the fields of `place`.
    pub fn of(place: &'a str, problems: &'a mut Vec<Problem>) -> Self {
        Self { place, problems }
    }

    /// Notes a problem of a field.
    pub fn problem(&mut self, field: &str, message: impl std::fmt::Display) {
        self.problems.push(Problem::field(&format!("{}.{field}", self.place), message));
    }

    /// A quantity in whole units; 0 when it is none.
    pub fn quantity(&mut self, field: &str, quantity: &Quantity) -> u64 {
        quantity::units(quantity).unwrap_or_else(|| {
            self.problem(field, format!("{:?} is not a quantity such as 8Gi", quantity.0));
            0
        })
    }

    /// A field of free form as the type that the API server will read it as, with unknown names refused.
    pub fn parsed<T: DeserializeOwned + Serialize>(
        &mut self,
        field: &str,
        value: Option<&Value>,
    ) -> Option<T> {
        let value = value?;
        match serde_json::from_value::<T>(value.clone()) {
            Ok(parsed) => {
                if let Some(lost) = lost(value, &fingerprint::json(&parsed)) {
                    self.problem(field, format!("{lost} is not a field"));
                }
                Some(parsed)
            }
            Err(error) => {
                self.problem(field, error);
                None
            }
        }
    }

    /// A list of such fields.
    pub fn all_parsed<T: DeserializeOwned + Serialize>(&mut self, field: &str, values: &[Value]) -> Vec<T> {
        let numbered = values.iter().enumerate();
        numbered.filter_map(|(at, value)| self.parsed(&format!("{field}[{at}]"), Some(value))).collect()
    }
}

/// The first path of `written` that reading it lost.
fn lost(written: &Value, read: &Value) -> Option<String> {
    match (written, read) {
        (Value::Object(written), Value::Object(read)) => written
            .iter()
            .find_map(|(key, value)| {
                let empty = value.is_null()
                    || value.as_array().is_some_and(Vec::is_empty)
                    || value.as_object().is_some_and(serde_json::Map::is_empty);
                match read.get(key) {
                    Some(read) => lost(value, read).map(|rest| format!("{key}.{rest}")),
                    None if empty => None,
                    None => Some(key.clone()),
                }
            })
            .map(|path| path.trim_end_matches('.').to_owned()),
        (Value::Array(written), Value::Array(read)) => written
            .iter()
            .zip(read)
            .enumerate()
            .find_map(|(at, (written, read))| lost(written, read).map(|rest| format!("[{at}].{rest}"))),
        _ => None,
    }
}
