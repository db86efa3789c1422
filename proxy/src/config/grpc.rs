//! gRPC on the gateway.

use std::net::SocketAddr;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

/// How clients of gRPC are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Grpc {
    /// A further address where clients connect, such as that of port 50051, which clients of Riva use. Without it they use
    /// `gateway.listen`, which serves gRPC and everything else.
    pub listen: Option<SocketAddr>,
    /// Largest message of a client; it is held in memory. Beyond it RESOURCE_EXHAUSTED.
    pub max_message: ByteSize,
}

impl Default for Grpc {
    fn default() -> Self {
        // A quarter of an hour of 16 kHz PCM.
        Self { listen: None, max_message: ByteSize::mib(32) }
    }
}

impl Grpc {
    /// What of these cannot be: the field and the reason.
    pub(super) fn fault(&self) -> Option<(&'static str, &'static str)> {
        let bytes = self.max_message.as_u64();
        // The length of a message has 32 bits.
        let fits = (1..=u64::from(u32::MAX)).contains(&bytes);
        (!fits).then_some(("max_message", "must be more than 0 and less than 4 GiB"))
    }

    /// Largest message, bytes.
    pub fn max_bytes(&self) -> usize {
        usize::try_from(self.max_message.as_u64()).unwrap_or(usize::MAX)
    }
}
