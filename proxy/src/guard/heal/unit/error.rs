//! Why systemd does not do what it should, and what mends it.

use zbus::fdo;

use crate::config;

/// Why a unit cannot be looked at or restarted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bus cannot be reached.
    #[error("engines[].unit: unable to reach {bus}: {source}; {fix}")]
    NoBus {
        /// Which bus.
        bus: String,
        /// What to do about it.
        fix: &'static str,
        /// The reason.
        #[source]
        source: Box<zbus::Error>,
    },
    /// No systemd is on the bus.
    #[error("engines[].unit: no systemd on the bus; set `user: true` for a unit of the user's own systemd")]
    NoSystemd,
    /// The unit does not exist.
    #[error(
        "engines[].unit: systemd has no unit {unit:?}; write its file, then run `systemctl daemon-reload`"
    )]
    Absent {
        /// Its name.
        unit: String,
    },
    /// Others may restart it, we may not.
    #[error(
        "engines[].unit: no permission to {what} {unit:?}; run as root, allow org.freedesktop.systemd1.manage-units to the user \
         by a polkit rule, or use a unit of the user's own systemd with `user: true`"
    )]
    Permission {
        /// What was asked for.
        what: &'static str,
        /// The unit.
        unit: String,
    },
    /// The unit has no process to kill.
    #[error("the unit has no process")]
    NoProcess,
    /// systemd does not answer in time.
    #[error("systemd does not answer when asked to {what} the unit")]
    Silent {
        /// What was asked for.
        what: &'static str,
    },
    /// systemd or the bus refuses.
    #[error("unable to {what} the unit: {source}")]
    Bus {
        /// What was asked for.
        what: &'static str,
        /// The reason.
        #[source]
        source: Box<zbus::Error>,
    },
}

impl Error {
    /// What a failed connection means.
    pub(super) fn no_bus(settings: &config::Unit, source: zbus::Error) -> Self {
        let (bus, fix) = match (&settings.bus, settings.user) {
            (Some(address), _) => (address.clone(), "correct engines[].unit.bus"),
            (None, true) => {
                ("the session bus".to_owned(), "run in the user's session, or set DBUS_SESSION_BUS_ADDRESS")
            }
            (None, false) => ("the system bus".to_owned(), "is this a machine with systemd?"),
        };
        Self::NoBus { bus, fix, source: Box::new(source) }
    }

    /// What a failed call means.
    pub(super) fn of(what: &'static str, unit: &str, source: zbus::Error) -> Self {
        if let zbus::Error::FDO(error) = &source {
            match **error {
                fdo::Error::ServiceUnknown(_) | fdo::Error::NameHasNoOwner(_) => return Self::NoSystemd,
                fdo::Error::AccessDenied(_) | fdo::Error::InteractiveAuthorizationRequired(_) => {
                    return Self::Permission { what, unit: unit.to_owned() };
                }
                _ => {}
            }
        }
        if let zbus::Error::MethodError(name, ..) = &source {
            match name.as_str() {
                "org.freedesktop.systemd1.NoSuchUnit" => return Self::Absent { unit: unit.to_owned() },
                "org.freedesktop.systemd1.NoSuchProcess" => return Self::NoProcess,
                _ => {}
            }
        }
        Self::Bus { what, source: Box::new(source) }
    }
}
