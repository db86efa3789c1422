//! The operator's tokens for guards: one for each stack, with an audience of its own, asked of the API server.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client};
use parking_lot::Mutex;
use speechstack_crds::SpeechStack;
use tokio::time::{Instant, timeout};

use crate::names;

/// Life of a token, seconds.
const LIFE: i64 = 3600;
/// Part of its life after which another one is asked for.
const WORN: f64 = 0.8;
/// For the API server's answer.
const TIMEOUT: Duration = Duration::from_secs(10);

type Stack = ObjectRef<SpeechStack>;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused, or could not be reached.
    #[error("unable to ask for a token")]
    Ask(#[source] Box<kube::Error>),
    /// The API server did not answer in time.
    #[error("no answer to the request of a token")]
    Silent,
    /// The API server's answer has no token.
    #[error("the answer has no token")]
    Empty,
}

/// Tokens by stack. Cheap to clone.
#[derive(Clone)]
pub struct Tokens {
    source: Arc<Source>,
    known: Arc<Mutex<HashMap<Stack, Arc<Slot>>>>,
}

/// Whose tokens, and where they come from.
enum Source {
    /// Tokens of this account, bound to the operator's pod: they end with it.
    Account { client: Client, namespace: String, account: String, pod: String },
    #[cfg(test)]
    Fixed(Mutex<String>),
}

/// One stack's token; locked while it is asked for, so that it is asked for once.
#[derive(Default)]
struct Slot(tokio::sync::Mutex<Option<Token>>);

struct Token {
    text: Arc<str>,
    worn: Instant,
}

impl Tokens {
    /// Tokens of the operator's own account.
    #[must_use]
    pub fn of_account(client: Client, namespace: &str, account: &str, pod: &str) -> Self {
        let (namespace, account, pod) = (namespace.to_owned(), account.to_owned(), pod.to_owned());
        Self::new(Source::Account { client, namespace, account, pod })
    }

    fn new(source: Source) -> Self {
        Self { source: Arc::new(source), known: Arc::default() }
    }

    /// The token for guards of that stack.
    ///
    /// # Errors
    /// When the API server gives none.
    pub async fn of(&self, stack: &Stack) -> Result<Arc<str>, Error> {
        let slot = self.known.lock().entry(stack.clone()).or_default().clone();
        let mut slot = slot.0.lock().await;
        if let Some(token) = slot.as_ref().filter(|token| Instant::now() < token.worn) {
            return Ok(Arc::clone(&token.text));
        }
        let text: Arc<str> = self.source.ask(stack).await?.into();
        let worn = Instant::now() + self.source.lasts();
        *slot = Some(Token { text: Arc::clone(&text), worn });
        Ok(text)
    }

    /// A stack is gone.
    pub fn forget(&self, stack: &Stack) {
        self.known.lock().remove(stack);
    }
}

impl Source {
    fn lasts(&self) -> Duration {
        match self {
            Self::Account { .. } => Duration::from_secs(LIFE.unsigned_abs()).mul_f64(WORN),
            #[cfg(test)]
            Self::Fixed(_) => Duration::ZERO,
        }
    }

    async fn ask(&self, stack: &Stack) -> Result<String, Error> {
        match self {
            Self::Account { client, namespace, account, pod } => {
                let stack_namespace = stack.namespace.as_deref().unwrap_or_default();
                let request = TokenRequest {
                    spec: TokenRequestSpec {
                        audiences: vec![names::audience(stack_namespace, &stack.name)],
                        expiration_seconds: Some(LIFE),
                        bound_object_ref: Some(BoundObjectReference {
                            api_version: Some("v1".into()),
                            kind: Some("Pod".into()),
                            name: Some(pod.clone()),
                            uid: None,
                        }),
                    },
                    ..TokenRequest::default()
                };
                let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
                let parameters = PostParams::default();
                let call = accounts.create_token_request(account, &parameters, &request);
                let answer = timeout(TIMEOUT, call).await.map_err(|_| Error::Silent)?;
                let answer = answer.map_err(|error| Error::Ask(Box::new(error)))?;
                answer.status.map(|status| status.token).ok_or(Error::Empty)
            }
            #[cfg(test)]
            Self::Fixed(token) => Ok(format!("{} for {}", token.lock(), stack.name)),
        }
    }
}

#[cfg(test)]
impl Tokens {
    /// The same token for every stack, with its name.
    pub fn fixed(token: &str) -> Self {
        Self::new(Source::Fixed(Mutex::new(token.to_owned())))
    }

    /// Another token from now on.
    pub fn set(&self, token: &str) {
        if let Source::Fixed(fixed) = &*self.source {
            token.clone_into(&mut fixed.lock());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::reconcile::testing::Server;

    #[tokio::test]
    async fn each_stack_has_an_audience_of_its_own_and_is_asked_for_once() {
        let server = Server::default();
        let path = "/api/v1/namespaces/system/serviceaccounts/operator/token";
        server.answer_posts(
            path,
            json!({"metadata": {}, "spec": {"audiences": []},
            "status": {"token": "t", "expirationTimestamp": "2026-11-01T00:00:00Z"}}),
        );
        let tokens = Tokens::of_account(server.client(), "system", "operator", "operator-0");
        for stack in ["a", "b", "a"] {
            tokens.of(&ObjectRef::new(stack).within("ns")).await.unwrap();
        }
        let asked: Vec<_> = server.posts().iter().map(|body| body["spec"]["audiences"][0].clone()).collect();
        assert_eq!(asked, ["speechstack-guard/ns/a", "speechstack-guard/ns/b"]);
    }
}
