//! Calls to the gateway.

use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, StatusCode, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::Error;

/// How long a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Without a byte for so long, an answer counts as lost. An engine may work as long on a long file.
const SILENCE: Duration = Duration::from_secs(15 * 60);
/// Longest part of an unexpected body that is shown.
const SHOWN_CHARS: usize = 300;
/// Tries of a call that fails for now.
const TRIES: u32 = 5;
/// Longest wait between two tries.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// A gateway.
pub struct Client {
    http: reqwest::Client,
    server: String,
    key: Option<String>,
}

/// OpenAI's envelope of an error.
#[derive(Deserialize)]
struct Envelope {
    error: Said,
}

#[derive(Deserialize)]
struct Said {
    message: String,
}

impl Client {
    /// A client of the gateway at a URL, with or without `/v1` at its end.
    ///
    /// # Errors
    /// When the URL is none.
    pub fn new(server: &str, key: Option<&str>) -> Result<Self, Error> {
        let server = server.trim_end_matches('/').trim_end_matches("/v1").trim_end_matches('/');
        if !server.starts_with("http://") && !server.starts_with("https://") {
            return Err(Error::Usage(format!(
                "--server {server} is no URL: it begins with http:// or https://"
            )));
        }
        let builder = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).read_timeout(SILENCE);
        // A container that calls a gateway over http has no certificates and needs none.
        let tls = server.starts_with("https://");
        let builder = if tls { builder } else { builder.tls_certs_only([]) };
        let http = builder.build().map_err(Error::Client)?;
        Ok(Self { http, server: server.to_owned(), key: key.map(str::to_owned) })
    }

    /// A request to a path such as `/v1/models`.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.server));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// The answer to a request.
    ///
    /// # Errors
    /// When there is none, or it is a refusal.
    pub async fn send(&self, request: RequestBuilder) -> Result<Response, Error> {
        let response = request.send().await.map_err(|error| self.silent(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let (status, retry) = (response.status(), retry_after(&response));
        let body = response.text().await.unwrap_or_default();
        Err(Error::Refused { status, message: message(status, &body), retry })
    }

    /// The answer to a call without a body, tried again while the gateway is away.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn call(&self, method: Method, path: &str) -> Result<Response, Error> {
        let mut tries = Tries::default();
        loop {
            match self.send(self.request(method.clone(), path)).await {
                Err(error) => tries.again(error).await?,
                answer => return answer,
            }
        }
    }

    /// A `GET` of JSON.
    ///
    /// # Errors
    /// As [`Client::send`], and when the body is of another form.
    pub async fn json<T: DeserializeOwned>(&self, what: &'static str, path: &str) -> Result<T, Error> {
        let response = self.call(Method::GET, path).await?;
        self.read(what, response).await
    }

    /// The JSON of an answer.
    ///
    /// # Errors
    /// When it ends early or is of another form.
    pub async fn read<T: DeserializeOwned>(
        &self,
        what: &'static str,
        response: Response,
    ) -> Result<T, Error> {
        let body = self.text(response).await?;
        serde_json::from_str(&body).map_err(|error| self.unreadable(what, &error))
    }

    /// An answer to `what` that has another form.
    pub fn unreadable(&self, what: &'static str, error: &serde_json::Error) -> Error {
        Error::Unreadable { what, server: self.server.clone(), reason: error.to_string() }
    }

    /// The text of an answer.
    ///
    /// # Errors
    /// When it ends early.
    pub async fn text(&self, response: Response) -> Result<String, Error> {
        response.text().await.map_err(|error| self.silent(&error))
    }

    /// An answer that did not come, or ended early.
    pub fn silent(&self, error: &reqwest::Error) -> Error {
        let mut cause: &dyn std::error::Error = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        self.lost(cause.to_string())
    }

    /// A connection that is lost, for that reason.
    pub fn lost(&self, reason: String) -> Error {
        Error::Silent { server: self.server.clone(), reason }
    }
}

/// Tries of one call.
pub struct Tries {
    made: u32,
    most: u32,
}

impl Default for Tries {
    fn default() -> Self {
        Self::of(TRIES)
    }
}

impl Tries {
    /// So many tries at most.
    pub fn of(most: u32) -> Self {
        Self { made: 0, most }
    }

    /// Waits for the next try.
    ///
    /// # Errors
    /// The error itself, when another try is of no use or there were enough.
    pub async fn again(&mut self, error: Error) -> Result<(), Error> {
        if error.is_temporary() { self.anyway(error).await } else { Err(error) }
    }

    /// As [`Tries::again`] after an error that another try may mend, whatever it is.
    ///
    /// # Errors
    /// The error itself, when there were enough tries.
    pub async fn anyway(&mut self, error: Error) -> Result<(), Error> {
        self.made += 1;
        if self.made >= self.most {
            return Err(error);
        }
        let asked = match &error {
            Error::Refused { retry, .. } => *retry,
            _ => None,
        };
        let wait = asked.unwrap_or_else(|| Duration::from_secs(1 << self.made.min(6))).min(MAX_WAIT);
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

fn retry_after(response: &Response) -> Option<Duration> {
    let value = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs)
}

/// What a refusal says, in the gateway's words where it has some.
fn message(status: StatusCode, body: &str) -> String {
    match serde_json::from_str::<Envelope>(body) {
        Ok(envelope) => envelope.error.message,
        Err(_) if body.trim().is_empty() => status.to_string(),
        Err(_) => format!("{status}: {}", body.trim().chars().take(SHOWN_CHARS).collect::<String>()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_in_the_words_of_the_gateway_or_of_what_is_between() {
        let of = |body| message(StatusCode::BAD_GATEWAY, body);
        assert_eq!(of(r#"{"error": {"message": "no engine"}}"#), "no engine");
        assert_eq!(of(" "), "502 Bad Gateway");
        assert_eq!(of("<html>nginx</html>\n"), "502 Bad Gateway: <html>nginx</html>");
    }

    #[test]
    fn a_url_may_end_as_the_base_url_of_an_sdk() {
        for url in [
            "http://gateway:8080",
            "http://gateway:8080/",
            "http://gateway:8080/v1",
            "http://gateway:8080/v1/",
        ] {
            assert_eq!(Client::new(url, None).unwrap().server, "http://gateway:8080");
        }
        assert!(matches!(Client::new("gateway:8080", None), Err(Error::Usage(_))));
    }
}
