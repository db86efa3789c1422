//! Schemas of fields whose form is not ours.

use schemars::{Schema, SchemaGenerator, json_schema};

/// An object of any form; the API server keeps its fields as they are.
pub fn open_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

/// A list of objects of any form, at most 32.
pub fn open_objects(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 32,
        "items": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
    })
}

/// A number or a text such as `25%`.
pub fn int_or_string(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "x-kubernetes-int-or-string": true })
}

/// CEL rules: `(rule, what to write instead)`.
pub fn rules(rules: &[(&str, &str)]) -> serde_json::Value {
    rules.iter().map(|(rule, message)| serde_json::json!({ "rule": rule, "message": message })).collect()
}
