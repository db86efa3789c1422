//! The page for people.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// What the page at `/` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Page {
    /// Whether there is one.
    pub enabled: bool,
    /// Whether it shows the engines, their states and repairs; unset only where the gateway listens on this machine alone.
    pub engines: Option<bool>,
}

impl Default for Page {
    fn default() -> Self {
        Self { enabled: true, engines: None }
    }
}

impl Page {
    /// Whether a gateway that listens there shows its engines.
    pub fn shows_engines(self, listen: SocketAddr) -> bool {
        self.enabled && self.engines.unwrap_or_else(|| listen.ip().is_loopback())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_are_shown_to_this_machine_unless_it_is_said_otherwise() {
        let (near, far) = ("127.0.0.1:8080".parse().unwrap(), "0.0.0.0:8080".parse().unwrap());
        let page = Page::default();
        assert!(page.shows_engines(near) && !page.shows_engines(far));
        assert!(Page { engines: Some(true), ..page }.shows_engines(far));
        assert!(!Page { engines: Some(false), ..page }.shows_engines(near));
        assert!(!Page { enabled: false, engines: Some(true) }.shows_engines(near));
    }
}
