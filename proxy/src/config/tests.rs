use std::path::Path;
use std::time::Duration;

use super::load::parse;
use super::*;

const STACK: &str = "
gateway:
  listen: 127.0.0.1:8080
  body_limit: 1GiB
guard:
  probe: {idle_period: 8s}
engines:
  - name: parakeet-0
    kind: parakeet
    url: http://127.0.0.1:9101
    guard: 127.0.0.1:9201
    guard_admin: 127.0.0.1:9301
    command: [speechstack-engine, --kind, parakeet]
";

fn read(text: &str, overrides: &[&str]) -> Result<Config, Error> {
    let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
    let config = parse(Path::new("stack.yaml"), text, &overrides)?;
    config.check()?;
    Ok(config)
}

#[test]
fn a_stack_reads_with_defaults_for_what_it_leaves_out() {
    let config = read(STACK, &[]).unwrap();
    assert_eq!(config.guard.probe.idle_period, Duration::from_secs(8));
    assert_eq!(config.guard.probe.content_period, Duration::from_secs(300));
    assert_eq!(config.gateway.body_limit, ByteSize::gib(1));
    assert_eq!(config.engine(None).unwrap().name, "parakeet-0");
    assert_eq!(config.gateway.voices["alloy"], "Magpie-Multilingual.EN-US.Sofia");
}

#[test]
fn an_unknown_field_is_refused_with_file_line_and_name() {
    let message = read(&STACK.replace("idle_period", "idle_perriod"), &[]).unwrap_err().to_string();
    assert!(message.contains("stack.yaml"), "{message}");
    assert!(message.contains("idle_perriod"), "{message}");
    assert!(message.contains("line 6") || message.contains(":6"), "{message}");
}

#[test]
fn overrides_replace_what_the_file_says() {
    let config =
        read(STACK, &["gateway.listen=127.0.0.1:81", "engines[0].name=p", "guard.lane.jobs=2"]).unwrap();
    assert_eq!(config.gateway.listen.port(), 81);
    assert_eq!(config.engines[0].name, "p");
    assert_eq!(config.guard.lane.jobs, 2);
    assert!(read(STACK, &["gateway.lissten=1"]).unwrap_err().to_string().contains("lissten"));
    assert!(read(STACK, &["gateway"]).is_err());
}

#[test]
fn contradictions_are_refused_by_name() {
    let twice = STACK.replace("guard: 127.0.0.1:9201", "guard: 127.0.0.1:9301");
    assert!(read(&twice, &[]).unwrap_err().to_string().contains("9301"));
    assert!(read(&STACK.replace("http://127", "https://127"), &[]).is_err());
    assert!(read(STACK, &["guard.lane.jobs=0"]).unwrap_err().to_string().contains("guard.lane.jobs"));
}

#[test]
fn probe_spacing_goes_on_beyond_the_list() {
    let confirm = Confirm::default();
    assert_eq!(confirm.spacing(0), Duration::ZERO);
    assert_eq!(confirm.spacing(2), Duration::from_secs(3));
    assert_eq!(confirm.spacing(3), Duration::from_secs(5));
}
