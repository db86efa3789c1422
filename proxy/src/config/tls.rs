//! HTTPS on the gateway.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The certificate of the public port, and where it is served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// File of the certificate chain, PEM, the server's own first. It is looked at every 2 s; an invalid one changes nothing.
    pub cert_file: PathBuf,
    /// File of its key, PEM.
    pub key_file: PathBuf,
    /// A further address that serves HTTPS, beside `gateway.listen`, which then stays plain HTTP. Without it `gateway.listen` and
    /// `gateway.grpc.listen` serve HTTPS alone.
    #[serde(default)]
    pub listen: Option<SocketAddr>,
}
