//! Datagrams without keys, and where an agent may be without them.
//!
//! An agent without keys starts only with `--insecure`, and only where no stranger can reach it: on loopback or in 198.18.0.0/15,
//! which is set aside for test networks (RFC 2544) and routed by nobody. What comes from elsewhere is not listened to.
//!
//! Such a datagram is `EVKL`, a version (1), a kind, then what it carries. With keys it is of version 2 (`trust::seal`).

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, bail, ensure};

const MAGIC: [u8; 4] = trust::seal::MAGIC;
const VERSION: u8 = 1;

/// Bytes that sealing adds.
pub const OVERHEAD: usize = 6;

/// What a datagram carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A request.
    Request = 1,
    /// Gossip of the membership.
    Gossip = 2,
}

/// Whether an agent without authentication is out of reach for strangers on all of these addresses.
///
/// # Errors
/// Naming the first address on which it is not.
pub fn check_insecure(addresses: &[IpAddr]) -> Result<()> {
    for address in addresses {
        if !secluded(*address) {
            bail!(
                "--insecure is refused on {address}: without authentication whoever reaches it could take VMs; \
                 only addresses in 127.0.0.0/8, ::1 and 198.18.0.0/15 are accepted"
            );
        }
    }
    Ok(())
}

/// The datagram that carries these bytes.
pub fn seal(kind: Kind, bytes: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(OVERHEAD + bytes.len());
    sealed.extend(MAGIC);
    sealed.extend([VERSION, kind as u8]);
    sealed.extend(bytes);
    sealed
}

/// What a datagram carries.
///
/// # Errors
/// If it is not of this protocol, of another version, or from a stranger.
pub fn open(from: SocketAddr, datagram: &[u8]) -> Result<(Kind, &[u8])> {
    check_insecure(&[from.ip()]).context("a datagram from a stranger")?;
    let Some((head, bytes)) = datagram.split_at_checked(OVERHEAD) else {
        bail!("a datagram of {} bytes, too short to be ours", datagram.len());
    };
    ensure!(head[..4] == MAGIC, "a datagram that is not of this protocol");
    ensure!(
        head[4] != trust::seal::VERSION,
        "a sealed datagram, and this agent runs without keys: install them here too"
    );
    ensure!(head[4] == VERSION, "a datagram of version {}, this agent speaks {VERSION}", head[4]);
    Ok((Kind::of(head[5])?, bytes))
}

fn secluded(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            v4.is_loopback() || (v4.octets()[0] == 198 && v4.octets()[1] & 0xfe == 18)
        }
        IpAddr::V6(v6) => v6.is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(address: &str) -> bool {
        check_insecure(&[address.parse().unwrap()]).is_err()
    }

    #[test]
    fn without_authentication_only_where_no_stranger_comes() {
        for fine in ["127.0.0.1", "127.255.3.4", "::1", "198.18.0.0", "198.19.255.255"] {
            assert!(!refused(fine), "{fine}");
        }
        for open in [
            "0.0.0.0",
            "::",
            "10.0.0.1",
            "192.168.1.1",
            "198.17.255.255",
            "198.20.0.0",
            "126.255.255.255",
            "128.0.0.1",
            "8.8.8.8",
            "169.254.0.1",
            "239.0.0.1",
            "255.255.255.255",
            "fe80::1",
            "::ffff:127.0.0.1",
            "::2",
        ] {
            assert!(refused(open), "{open}");
        }
    }

    #[test]
    fn one_open_address_among_others_is_named() {
        let addresses = ["127.0.0.1".parse().unwrap(), "10.0.0.1".parse().unwrap()];
        let why = check_insecure(&addresses).unwrap_err().to_string();
        assert!(why.starts_with("--insecure is refused on 10.0.0.1:"), "{why}");
        assert!(check_insecure(&addresses[..1]).is_ok());
    }

    #[test]
    fn what_was_sealed_opens_and_nothing_else_does() {
        let here = "127.0.0.1:1".parse().unwrap();
        let stranger = "10.0.0.1:1".parse().unwrap();
        let sealed = seal(Kind::Gossip, b"hello");
        assert_eq!(sealed.len(), OVERHEAD + 5);
        assert_eq!(open(here, &sealed).unwrap(), (Kind::Gossip, &b"hello"[..]));
        assert_eq!(open(here, &seal(Kind::Request, b"")).unwrap(), (Kind::Request, &b""[..]));
        let why = |from, change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = sealed.clone();
            change(&mut bytes);
            open(from, &bytes).unwrap_err().to_string()
        };
        assert_eq!(why(stranger, &|_| {}), "a datagram from a stranger");
        assert_eq!(why(here, &|b| b.truncate(5)), "a datagram of 5 bytes, too short to be ours");
        assert_eq!(why(here, &|b| b[0] = 0), "a datagram that is not of this protocol");
        assert_eq!(why(here, &|b| b[4] = 9), "a datagram of version 9, this agent speaks 1");
        assert!(
            why(here, &|b| b[4] = 2)
                .starts_with("a sealed datagram, and this agent runs without keys")
        );
        assert_eq!(why(here, &|b| b[5] = 3), "a datagram of unknown kind 3, from a newer version?");
    }
}
