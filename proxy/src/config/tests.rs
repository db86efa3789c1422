use std::path::Path;
use std::time::Duration;

use crate::config::load::parse;
use crate::config::*;

const STACK: &str = "
gateway:
  listen: 127.0.0.1:8080
  body_limit: 1GiB
guard:
  probe: {idle_period: 8s}
engines:
  - name: parakeet-0
    capability: stt
    url: http://127.0.0.1:9101
    guard: 127.0.0.1:9201
    guard_admin: 127.0.0.1:9301
    command: [speechstack-engine, --kind, stt]
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
    for (url, word) in [("ftp://127.0.0.1", "https://host"), ("https://api.openai.com/v1", "leave it out")] {
        let url_ = format!("engines[0].url={url}");
        assert!(read(STACK, &[&url_]).unwrap_err().to_string().contains(word), "{url}");
    }
    assert!(read(STACK, &["engines[0].url=https://api.openai.com"]).is_ok());
    let alone = read(STACK, &["engines[0].standby=true"]).unwrap_err().to_string();
    assert!(alone.contains("engines[].standby") && alone.contains("parakeet-0"), "{alone}");
    assert!(read(STACK, &["guard.lane.jobs=0"]).unwrap_err().to_string().contains("guard.lane.jobs"));
    for (field, value) in
        [("after", "0s"), ("factor", "0.5"), ("factor", ".nan"), ("share", "1.5"), ("share", "-0.1")]
    {
        let message = read(STACK, &[&format!("gateway.hedge.{field}={value}")]).unwrap_err().to_string();
        assert!(message.contains("gateway.hedge") && message.contains(field), "{message}");
    }
}

#[test]
fn hedging_is_on_within_bounds_and_can_be_turned_off() {
    let hedge = read(STACK, &[]).unwrap().gateway.hedge;
    assert!(hedge.enabled && hedge.share <= 0.03);
    let off = read(STACK, &["gateway.hedge.enabled=false", "gateway.hedge.max_predicted=5s"])
        .unwrap()
        .gateway
        .hedge;
    assert!(!off.enabled);
    assert_eq!((off.after, off.max_predicted), (Duration::from_secs(1), Duration::from_secs(5)));
}

const GUARD: &str = "
engines:
  - name: set-by-POD_NAME
    capability: stt
    url: http://127.0.0.1:9000
    guard: 0.0.0.0:9400
    guard_admin: 0.0.0.0:9401
    kubelet: {dir: /run/speechstack, helper: /usr/local/bin/speechstack-livez, direct_kill: false}
    operator: {audience: speechstack-guard, subject: 'system:serviceaccount:ns:operator'}
";

#[test]
fn an_engine_is_run_in_one_way_only() {
    let unit = STACK.replace("command: [speechstack-engine, --kind, stt]", "unit: parakeet");
    assert_eq!(read(&unit, &[]).unwrap().engines[0].unit.as_ref().unwrap().name, "parakeet.service");
    let refused = |text: &str, overrides: &[&str]| read(text, overrides).unwrap_err().to_string();
    let both = refused(STACK, &["engines[0].container={name: parakeet}"]);
    for part in ["engines[].container", "engines[].command", "parakeet-0"] {
        assert!(both.contains(part), "{both}");
    }
    assert!(refused(&unit, &["engines[0].kubelet={}"]).contains("engines[].unit"));
    assert!(refused(&unit, &["engines[0].env={A: b}"]).contains("engines[].env"));
    assert!(refused(&unit, &["engines[0].unit=a.timer"]).contains("engines[].unit of parakeet-0"));
    let container = unit.replace("unit: parakeet", "container: {name: parakeet}");
    assert!(read(&container, &[]).is_ok());
    assert!(refused(&container, &["engines[0].container.gpus=[all]"]).contains("engines[].container.gpus"));
}

const GATEWAY: &str = "
gateway:
  discovery:
    namespace: ns
    pools: [{name: ears, capability: stt, service: s-ears}, {name: mouth, capability: tts, service: s-mouth}]
  models: [{id: parakeet, capability: stt, pool: ears, aliases: [whisper-1]}, {id: magpie, capability: tts}]
  drain_delay: 5s
";

#[test]
fn a_guard_in_a_pod_has_a_eject_and_an_operator() {
    let config = read(GUARD, &["engines[0].name=s-ears-0", "guard.repair.alone.after=1m"]).unwrap();
    assert_eq!(config.engines[0].name, "s-ears-0");
    assert_eq!(config.engines[0].operator.as_ref().unwrap().audience, "speechstack-guard");
    assert_eq!(config.guard.repair.alone.after, Duration::from_secs(60));
    let refused = |overrides: &[&str]| read(GUARD, overrides).unwrap_err().to_string();
    assert!(refused(&["engines[0].command=[engine]"]).contains("command"));
    assert!(refused(&["engines[0].kubelet=null"]).contains("needs engines[].kubelet"));
    assert!(refused(&["engines[0].operator.subject=''"]).contains("engines[].operator.subject"));
}

#[test]
fn a_gateway_finds_pools_that_its_models_name() {
    let config = read(GATEWAY, &[]).unwrap();
    assert!(config.has(Capability::Stt) && config.has(Capability::Tts));
    assert_eq!(config.gateway.drain_delay, Duration::from_secs(5));
    let refused = |overrides: &[&str]| read(GATEWAY, overrides).unwrap_err().to_string();
    assert!(refused(&["gateway.models[0].pool=mouth"]).contains("no pool of capability stt"));
    assert!(refused(&["gateway.discovery.pools[1].name=ears"]).contains("pools[].name"));
    assert!(refused(&["gateway.discovery.pools[1].service=s-ears"]).contains("pools[].service"));
    assert!(refused(&["gateway.discovery.namespace=''"]).contains("namespace"));
    assert!(refused(&["gateway.discovery.pools[0].standby=true"]).contains("pools[].standby"));
    assert!(refused(&["gateway.discovery.pools[0].hosted={}"]).contains("pools[].hosted"));
    let both = format!("{GATEWAY}{STACK}").replacen(
        "\ngateway:\n  listen: 127.0.0.1:8080\n  body_limit: 1GiB",
        "",
        1,
    );
    assert!(read(&both, &[]).unwrap_err().to_string().contains("excludes the list engines"));
    assert!(read(STACK, &["gateway.models=[{id: a, capability: stt, pool: stt}]"]).is_ok());
}

#[test]
fn probe_spacing_goes_on_beyond_the_list() {
    let confirm = Confirm::default();
    assert_eq!(confirm.spacing(0), Duration::ZERO);
    assert_eq!(confirm.spacing(2), Duration::from_secs(3));
    assert_eq!(confirm.spacing(3), Duration::from_secs(5));
}

#[test]
fn an_engine_speaks_the_protocols_of_its_list_or_the_default_of_its_capability() {
    let config = read(STACK, &[]).unwrap();
    assert_eq!(config.engines[0].spoken(), [Protocol::named("parakeet").unwrap()]);
    let config = read(STACK, &["engines[0].protocols=[parakeet]", "engines[0].language=de-DE"]).unwrap();
    assert_eq!(config.engines[0].spoken(), [Protocol::named("parakeet").unwrap()]);
    assert_eq!(config.engines[0].settings().language.as_deref(), Some("de-DE"));
    let refused = |overrides: &[&str]| read(STACK, overrides).unwrap_err().to_string();
    let unknown = refused(&["engines[0].protocols=[whisper]"]);
    assert!(unknown.contains("whisper") && unknown.contains("parakeet, magpie"), "{unknown}");
    let misplaced = refused(&["engines[0].protocols=[magpie]"]);
    assert!(misplaced.contains("magpie, which does not serve stt"), "{misplaced}");
    assert!(refused(&["engines[0].protocols=[parakeet, parakeet]"]).contains("twice"));
    assert!(refused(&["engines[0].grpc=127.0.0.1:50051"]).contains("engines[].grpc"));
    assert!(refused(&["engines[0].protocols=[nim_http, riva]"]).contains("its protocol riva needs it"));
    let config =
        read(STACK, &["engines[0].protocols=[nim_http, riva]", "engines[0].grpc=http://127.0.0.1:50051"]);
    assert_eq!(config.unwrap().engines[0].spoken().len(), 2);
}

#[test]
fn limits_of_connections_are_read_and_checked() {
    let config = read(STACK, &["gateway.connections={max: 9, body_rate: 2KiB}"]).unwrap();
    assert_eq!(config.gateway.connections.limits().max_connections, 9);
    assert_eq!(config.gateway.connections.pace().bytes_per_second, 2048);
    let refused = |overrides: &[&str]| read(STACK, overrides).unwrap_err().to_string();
    assert!(refused(&["gateway.connections.max=0"]).contains("gateway.connections max"));
    assert!(refused(&["guard.connections.head_timeout=0s"]).contains("guard.connections head_timeout"));
    assert!(refused(&["guard.lane.max_uploads=0"]).contains("guard.lane.max_uploads"));
}
