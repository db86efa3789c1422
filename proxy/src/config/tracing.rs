//! Traces: where spans are exported to.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use trace::{Endpoint, HeadersFile, Settings};

use crate::config::Error;

/// Traces. What comes with a `traceparent` is passed on with one, whatever is set here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tracing {
    /// Export over OTLP; none when unset.
    pub otlp: Option<Otlp>,
}

/// Export of spans over OTLP, in protobuf over HTTP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Otlp {
    /// The collector, as in `http://collector:4318`; `/v1/traces` is added.
    pub endpoint: String,
    /// Share of the traces that begin here which is recorded, 0 to 1. A trace that comes with a request is recorded if its
    /// sender says so.
    #[serde(default = "all")]
    pub sample_ratio: f64,
    /// File with headers for the collector, one `NAME: VALUE` a line.
    #[serde(default)]
    pub headers_file: Option<PathBuf>,
    /// `service.name`; what runs when unset: `speechstack-gateway`, `speechstack-guard`, `speechstack`.
    #[serde(default)]
    pub service_name: Option<String>,
}

fn all() -> f64 {
    1.0
}

/// OpenTelemetry's own variables. What the file says counts more.
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";
const SAMPLER_ARG: &str = "OTEL_TRACES_SAMPLER_ARG";

impl Tracing {
    /// Fills in what the file does not say from OpenTelemetry's variables; an empty one counts as unset.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the variable that cannot be.
    pub(super) fn complete(&mut self, variable: impl Fn(&str) -> Option<String>) -> Result<(), Error> {
        let variable = |name| variable(name).filter(|value| !value.trim().is_empty());
        if self.otlp.is_none()
            && let Some(endpoint) = variable(ENDPOINT)
        {
            let ratio = variable(SAMPLER_ARG).map(|text| {
                let ratio = text.trim().parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
                ratio.ok_or_else(|| Error::Invalid { field: SAMPLER_ARG, reason: RATIO.into() })
            });
            endpoint.parse::<Endpoint>().map_err(|error| invalid(ENDPOINT, &error))?;
            let sample_ratio = ratio.transpose()?.unwrap_or_else(all);
            self.otlp = Some(Otlp { endpoint, sample_ratio, headers_file: None, service_name: None });
        }
        if let Some(otlp) = &mut self.otlp
            && otlp.service_name.is_none()
        {
            otlp.service_name = variable(SERVICE_NAME);
        }
        Ok(())
    }

    /// Refuses what cannot be.
    pub(super) fn check(&self) -> Result<(), Error> {
        let Some(otlp) = &self.otlp else { return Ok(()) };
        otlp.endpoint.parse::<Endpoint>().map_err(|error| invalid("tracing.otlp.endpoint", &error))?;
        if !(0.0..=1.0).contains(&otlp.sample_ratio) {
            return Err(Error::Invalid { field: "tracing.otlp.sample_ratio", reason: RATIO.into() });
        }
        Ok(())
    }
}

const RATIO: &str = "must be a number from 0 to 1";

fn invalid(field: &'static str, error: &trace::Error) -> Error {
    Error::Invalid { field, reason: format!("is wrong: {error}") }
}

impl Otlp {
    /// What the export of a process is started with that is this service unless it is named.
    ///
    /// # Errors
    /// The endpoint cannot be one.
    pub fn settings(&self, service: &str) -> Result<Settings, trace::Error> {
        Ok(Settings {
            endpoint: self.endpoint.parse()?,
            headers: self.headers_file.clone().map(HeadersFile),
            sample_ratio: self.sample_ratio,
            service: self.service_name.clone().unwrap_or_else(|| service.to_owned()),
            version: env!("CARGO_PKG_VERSION"),
            instance: std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(text: &str, variables: &[(&str, &str)]) -> Result<Option<Otlp>, String> {
        let mut tracing: Tracing = serde_saphyr::from_str(text).unwrap();
        let variable = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        let checked = tracing.complete(variable).and_then(|()| tracing.check());
        checked.map(|()| tracing.otlp).map_err(|error| error.to_string())
    }

    #[test]
    fn the_file_counts_more_than_the_environment() {
        let environment = [(ENDPOINT, "http://env:4318"), (SAMPLER_ARG, "0.25"), (SERVICE_NAME, "speech-eu")];
        let from_env = completed("{}", &environment).unwrap().unwrap();
        assert_eq!((from_env.endpoint.as_str(), from_env.sample_ratio), ("http://env:4318", 0.25));
        assert_eq!(from_env.service_name.as_deref(), Some("speech-eu"));
        let file = "otlp: {endpoint: 'http://file:4318', service_name: mine}";
        let from_file = completed(file, &environment).unwrap().unwrap();
        assert_eq!((from_file.endpoint.as_str(), from_file.sample_ratio), ("http://file:4318", 1.0));
        assert_eq!(from_file.service_name.as_deref(), Some("mine"));
        assert_eq!(completed("{}", &[(ENDPOINT, " ")]), Ok(None));
        assert_eq!(completed("{}", &[(SERVICE_NAME, "alone")]), Ok(None));
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (text, variables, field) in [
            ("otlp: {endpoint: 'collector:4318'}", &[][..], "tracing.otlp.endpoint"),
            ("otlp: {endpoint: 'http://c', sample_ratio: 1.5}", &[], "tracing.otlp.sample_ratio"),
            ("otlp: {endpoint: 'http://c', sample_ratio: .nan}", &[], "tracing.otlp.sample_ratio"),
            ("{}", &[(ENDPOINT, "collector")], ENDPOINT),
            ("{}", &[(ENDPOINT, "http://c"), (SAMPLER_ARG, "always")], SAMPLER_ARG),
        ] {
            let error = completed(text, variables).unwrap_err();
            assert!(error.starts_with(field), "{text}: {error}");
        }
    }

    #[test]
    fn a_service_is_named_by_what_runs() {
        let otlp = completed("otlp: {endpoint: 'http://c:4318'}", &[]).unwrap().unwrap();
        assert_eq!(otlp.settings("speechstack-guard").unwrap().service, "speechstack-guard");
    }
}
