//! The committed YAML is what the types say.

use std::fs;

#[test]
fn yaml_is_generated_from_the_types() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/speechstacks.yaml");
    let now = speechstack_crds::yaml().unwrap();
    let committed = fs::read_to_string(path).unwrap_or_default();
    if std::env::var_os("SPEECHSTACK_WRITE_CRDS").is_some() {
        fs::write(path, &now).unwrap();
    } else {
        assert!(committed == now, "crds/speechstacks.yaml is out of date: run `make crds`");
    }
}

#[test]
fn yaml_fits_the_annotation_of_kubectl_apply() {
    let json =
        serde_json::to_string(&<speechstack_crds::SpeechStack as kube::CustomResourceExt>::crd()).unwrap();
    assert!(json.len() < 262_144, "{} bytes", json.len());
}
