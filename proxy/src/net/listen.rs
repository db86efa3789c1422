//! Listening, on both address families where the kernel has both.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::TcpListener;

/// `EAFNOSUPPORT`: the kernel has no IPv6.
const NO_SUCH_FAMILY: i32 = 97;

/// A listener on the address. `[::]` takes IPv4 as well, and IPv4 alone where the kernel has no IPv6.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(error) if is_without_ipv6(address, &error) => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    }
}

fn is_without_ipv6(address: SocketAddr, error: &io::Error) -> bool {
    let refused =
        error.raw_os_error() == Some(NO_SUCH_FAMILY) || error.kind() == io::ErrorKind::AddrNotAvailable;
    address.ip() == Ipv6Addr::UNSPECIFIED && refused
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn any_address_takes_both_families() {
        let listener = listen((Ipv6Addr::UNSPECIFIED, 0).into()).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        let ipv6 = std::path::Path::new("/proc/net/if_inet6").exists();
        if ipv6 && std::fs::read_to_string("/proc/net/if_inet6").unwrap().contains("lo") {
            TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await.unwrap();
        }
    }

    #[test]
    fn only_any_address_falls_back() {
        let error = io::Error::from_raw_os_error(NO_SUCH_FAMILY);
        assert!(is_without_ipv6((Ipv6Addr::UNSPECIFIED, 1).into(), &error));
        assert!(!is_without_ipv6((Ipv6Addr::LOCALHOST, 1).into(), &error));
        let busy = io::Error::from(io::ErrorKind::AddrInUse);
        assert!(!is_without_ipv6((Ipv6Addr::UNSPECIFIED, 1).into(), &busy));
    }
}
