use std::collections::HashSet;

use super::write::document;
use super::*;

#[test]
fn every_reference_leads_to_a_schema_and_every_name_is_used_once() {
    let document = document();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let text = document.to_string();
    let found = text.split("\"#/components/schemas/").skip(1).map(|rest| rest.split('"').next().unwrap());
    for name in found {
        assert!(schemas.contains_key(name), "{name}");
    }
    let all = operations::ALL.iter().copied().flatten();
    let ids: Vec<_> = all.clone().map(|operation| operation.id).collect();
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
    let calls: HashSet<_> = all.map(|operation| (operation.method, operation.path)).collect();
    assert_eq!(calls.len(), ids.len());
}

#[test]
fn optional_fields_of_replies_are_not_required() {
    let document = document();
    let verbose = &document["components"]["schemas"]["TranscriptionVerbose"];
    let required: Vec<_> =
        verbose["required"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert!(required.contains(&"duration") && !required.contains(&"words"), "{required:?}");
    assert_eq!(verbose["properties"]["segments"]["items"]["$ref"], "#/components/schemas/TranscriptSegment");
}
